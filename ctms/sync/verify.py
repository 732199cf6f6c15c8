"""Comparison of another system's data with the contacts, for a random sample."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ctms.contacts import queries
from ctms.contacts.documents import with_status
from ctms.database.pool import Connection
from ctms.errors import OperatorError
from ctms.hooks.comparison import differences
from ctms.hooks.receivers import Backend, Fetches
from ctms.outbox.changes import RESYNC, outbox
from ctms.outbox.lanes import BACKEND, Lane
from ctms.sync import mirrored
from ctms.sync.calls import Calls
from ctms.sync.verdicts import sanitize_reason

# Random pages, then random rows of those: every row is equally likely, and a large table is not read as a whole. About
# four pages per row, so that rows of the same page are rare.
_SAMPLE = """
    SELECT email_id FROM {table} TABLESAMPLE SYSTEM (least(100, 100.0 * %(pages)s / greatest(1,
        pg_relation_size('{table}') / current_setting('block_size')::int)))
    WHERE {which} ORDER BY random() LIMIT %(number)s"""
_ANY = _SAMPLE.format(table="emails", which="true")
_MIRRORED = _SAMPLE.format(table="outbox_mirrored", which="backend = %(backend)s")
_FEWEST_PAGES = 2_000

_WAITING = "SELECT email_id, parked_at IS NOT NULL FROM outbox WHERE backend = %s AND email_id = ANY(%s)"


@dataclass
class Findings:
    """The result: the number of equal contacts, and the ids of the others.

    `missing` are not there; `extra` are there, though deleted or unwanted; `differing` have other values at these
    places. Not compared are contacts that are pending or parked, that changed in the meantime, and those for which
    `wants` fails (`unclear`).
    """

    sample: int = 0
    equal: int = 0
    waiting: int = 0
    parked: int = 0
    changed: int = 0
    unclear: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    differing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """The ids of all contacts that differ."""
        return sorted({*self.missing, *self.extra, *(one for ids in self.differing.values() for one in ids)})


def verify(connection: Connection, backend: Backend, number: int) -> Findings:
    """Compare a random sample of `number` contacts; for a backend that selects, also as many that it has.

    Raises `OperatorError` if the backend cannot be compared or its `fetch` fails.
    """
    fetch = _Fetch(backend)
    found = Findings()
    ids = _sample(connection, backend, number)
    for start in range(0, len(ids), backend.max_batch):
        _compare(connection, backend, fetch, ids[start : start + backend.max_batch], found)
    return found


def repair(connection: Connection, backend: Backend, found: Findings) -> None:
    """Push the contacts that differ again."""
    with connection.transaction():
        if backend.selects:  # unwanted contacts are pushed as gone only if it is known to have them
            mirrored.add(connection, backend.name, found.extra)
        wrong = [UUID(one) for one in found.wrong]
        outbox().changed(connection, wrong, priority=RESYNC, backends=[backend.name])


def _sample(connection: Connection, backend: Backend, number: int) -> list[UUID]:
    values = {"backend": backend.name, "number": number, "pages": max(_FEWEST_PAGES, 4 * number)}
    ids: dict[UUID, None] = {}
    for sql in (_ANY, _MIRRORED) if backend.selects else (_ANY,):
        ids |= {email_id: None for (email_id,) in connection.execute(sql, values).fetchall()}
    return list(ids)


class _Fetch:
    """Calls `fetch` as the background service calls `push`: with the backend's timeout and rate."""

    def __init__(self, backend: Backend) -> None:
        if not isinstance(backend.implementation, Fetches):
            raise OperatorError(f"the backend {backend.name} cannot be compared: its implementation has no `fetch`")
        self._backend = backend
        self._fetch = backend.implementation.fetch
        self._calls = Calls()
        self._turn = 0.0

    def __call__(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        backend = self._backend
        time.sleep(max(0.0, self._turn - time.monotonic()))
        if backend.rate:
            self._turn = time.monotonic() + 1 / backend.rate
        try:
            answer = self._calls.call(Lane(BACKEND, backend.name, 0), lambda: self._fetch(email_ids), backend.timeout)
        except Exception as error:
            raise OperatorError(f"`fetch` of the backend {backend.name} raised {type(error).__name__}") from error
        if not isinstance(answer, Mapping) or not all(isinstance(kept, Mapping) for kept in answer.values()):
            raise OperatorError(f"`fetch` of the backend {backend.name} must return what is kept by email_id")
        return answer


@dataclass(frozen=True)
class _Snapshot:
    """The documents of some contacts, and the pending ones among them (True: parked), at one time."""

    documents: Mapping[UUID, str]
    waiting: Mapping[UUID, bool]


def _read_snapshot(connection: Connection, email_ids: Sequence[UUID], backend: str) -> _Snapshot:
    # In this order: an edit between the two queries is seen as pending, and the document is the older one.
    documents = queries.documents_by_id(connection, email_ids)
    return _Snapshot(documents, dict(connection.execute(_WAITING, (backend, list(email_ids))).fetchall()))


def _compare(
    connection: Connection, backend: Backend, fetch: _Fetch, email_ids: Sequence[UUID], found: Findings
) -> None:
    """Read before and after the call: only contacts that did not change, and were not pending, can be compared."""
    before = _read_snapshot(connection, email_ids, backend.name)
    kept = fetch([str(email_id) for email_id in email_ids])
    after = _read_snapshot(connection, email_ids, backend.name)
    for email_id in email_ids:
        found.sample += 1
        waiting = {**before.waiting, **after.waiting}.get(email_id)
        document = after.documents.get(email_id)
        if waiting is not None:
            found.parked += waiting
            found.waiting += not waiting
        elif document != before.documents.get(email_id):
            found.changed += 1
        else:
            _judge(backend, str(email_id), document, kept.get(str(email_id)), found)


def _judge(
    backend: Backend, email_id: str, document: str | None, kept: Mapping[str, Any] | None, found: Findings
) -> None:
    wanted = None if document is None else json.loads(with_status(document))
    try:
        if wanted is not None and not backend.is_for(wanted):
            wanted = None
    except Exception:  # noqa: BLE001  whatever a plugin raises
        found.unclear += 1
        return
    if wanted is None or kept is None:
        found.equal += wanted is None and kept is None
        if wanted is not None:
            found.missing.append(email_id)
        elif kept is not None:
            found.extra.append(email_id)
        return
    places = list(_places(wanted, kept))
    found.equal += not places
    for place in places:
        found.differing.setdefault(place, []).append(email_id)


def _places(wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    # The other system's names of unknown members might be anything.
    yield from sorted({sanitize_reason(place) or "…" for place in differences(wanted, kept)})
