"""The summary of one run of the background service: numbers of contacts, by backend and deletion handler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from threading import Lock

from ctms.outbox.lanes import HANDLER, Lane
from ctms.sync.receiver_states import WORDS
from ctms.sync.verdicts import AskAgain, Finished, Later, Parked, Verdict
from ctms.sync.work import Batch, Item
from ctms.words import counted

_DONE = {"push": "delivered", "erase": "erased", "verify": "verified", "": "skipped"}
"""The word for a contact after a successful call of the method; without a call, the receiver did not need it."""
_ACCEPTED, _VERIFYING, _LATER, _PARKED = "accepted", "still to be verified", "to be tried again", "parked"
_ORDER = ("delivered", "erased", "verified", "skipped", _ACCEPTED, _VERIFYING, _LATER, _PARKED)


class Summary:
    """The settled contacts; `lines` describes them. Lanes add to it from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._done: dict[tuple[str, str], Counter[str]] = {}
        # For an unfinished contact the last verdict counts: it may be tried more than once.
        self._open: dict[tuple[str, str], dict[object, str]] = {}

    def add(self, lane: Lane, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        """Add the verdicts of contacts."""
        key = (lane.kind, lane.name)
        with self._lock:
            done, unfinished = self._done.setdefault(key, Counter()), self._open.setdefault(key, {})
            for item, verdict in verdicts.items():
                if isinstance(verdict, Finished):
                    done[_DONE[batch.method]] += 1
                    unfinished.pop(item.key, None)
                else:
                    unfinished[item.key] = _unfinished(lane, batch, verdict)

    @property
    def failed(self) -> int:
        """The number of contacts that are parked or will be retried."""
        with self._lock:
            return sum(word in {_LATER, _PARKED} for found in self._open.values() for word in found.values())

    def lines(self) -> Iterator[str]:
        """Yield a line for each backend and deletion handler that had something to do."""
        with self._lock:
            for kind, name in sorted(self._done):
                numbers = self._done[kind, name] + Counter(self._open[kind, name].values())
                said = ", ".join(f"{counted(numbers[word], 'contact')} {word}" for word in _ORDER if numbers[word])
                if said:
                    yield f"{WORDS[kind]} {name}: {said}"


def _unfinished(lane: Lane, batch: Batch, verdict: Verdict) -> str:
    match verdict:
        case Parked():
            return _PARKED
        case AskAgain():
            return _ACCEPTED if lane.kind == HANDLER else _LATER  # a backend has nothing to accept
        case Later(in_progress=True) if batch.method == "verify":
            return _VERIFYING
        case Later() | Finished():
            return _LATER
