"""Other systems that hear of contacts: backends, which mirror them, and deletion handlers, which forget them.

The background service (`flask ctms worker`) calls them; it owns waiting, order, batches, retries, rate, time-outs,
logs and metrics. They answer with what became of each contact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ctms.hooks.registrations import RegistrationError, check_callable, check_name


@dataclass(frozen=True)
class Done:
    """The other system has it, or had it already."""


@dataclass(frozen=True)
class TryLater:
    """Not now: try again `after` so many seconds; None leaves it to the host, which waits longer each time."""

    after: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SlowDown:
    """Nothing for `after` so many seconds, for any contact: the other system has set a limit."""

    after: float
    reason: str = ""


@dataclass(frozen=True)
class Refused:
    """Never like this: the contact is parked until it changes or an operator retries it.

    `reason` is for operators and groups what is parked: it names no person.
    """

    reason: str


@dataclass(frozen=True)
class Accepted:
    """A deletion handler's: the other system works on it; ask again `after` so many seconds."""

    after: float


@dataclass(frozen=True)
class Pause:
    """Nothing more until an operator resumes it: the other system has told us to stop. What waits is kept."""

    reason: str


Outcome = Done | TryLater | SlowDown | Refused | Accepted | Pause
Outcomes = Outcome | Mapping[str, Outcome] | None
"""What a call answers: one outcome for all, or one for each `email_id`; None means done.

An `email_id` that a mapping does not name is tried again later.
"""

Identities = Mapping[str, str | None]
"""The nine identities of a contact as `GET /identity/{email_id}` gives them."""


@dataclass(frozen=True)
class ContactState:
    """A contact as it is now: `document` as `GET /ctms/{email_id}` gives it, None when the contact is gone.

    It is gone when it was deleted, and for a backend that wants some contacts only, when it is none of those any more.
    """

    email_id: str
    document: Mapping[str, Any] | None

    @property
    def gone(self) -> bool:
        """True when the other system must not have it any more."""
        return self.document is None


@runtime_checkable
class Pushes(Protocol):
    """What a backend does: `push` sends the full state of contacts. It may have `fetch`, too."""

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Outcomes:
        """Make the other system's copies equal to `contacts`, each of which comes once.

        The same states tried again have the same key. Whatever it raises counts as `TryLater`; five times for one
        contact alone counts as refused, but for `OSError` (a network that fails), which never does.
        """


@runtime_checkable
class Fetches(Protocol):
    """A backend that can be compared."""

    def fetch(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what the other system has, by `email_id`: those parts of the document that it keeps."""


@runtime_checkable
class Erases(Protocol):
    """What a deletion handler does: `erase` makes the other system forget. It may have `verify`, too."""

    def erase(self, identities: Sequence[Identities]) -> Outcomes:
        """Forget these contacts; who is not there is done. What it raises counts as with `Pushes.push`."""


@runtime_checkable
class Verifies(Protocol):
    """A deletion handler that can look whether the other system has forgotten."""

    def verify(self, identities: Sequence[Identities]) -> Outcomes:
        """Answer `Done` for whom nothing is left, `TryLater` where the other system is still at it, else `Refused`."""


@dataclass(frozen=True, kw_only=True)
class _Receiver:
    """What backends and deletion handlers have in common."""

    name: str
    max_batch: int = 100
    concurrency: int = 1
    rate: float | None = None
    timeout: float = 60.0
    description: str = ""

    _kind = "receiver"

    def __post_init__(self) -> None:
        check_name(self._kind, self.name)
        self._check_number("max_batch", 1, 10_000, whole=True)
        self._check_number("concurrency", 1, 32, whole=True)
        self._check_number("timeout", 0.1, 3600)
        if self.rate is not None:
            self._check_number("rate", 0.001, 100_000)

    def _check_number(self, what: str, least: float, most: float, *, whole: bool = False) -> None:
        value = getattr(self, what)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or (whole and not isinstance(value, int)) or not least <= value <= most:
            raise RegistrationError(f"{what} of a {self._kind} is from {least:,} to {most:,}, not {value!r}")

    @property
    def lanes(self) -> range:
        """The calls that may run at once, numbered: a contact always travels in the same lane."""
        return range(self.concurrency)


@dataclass(frozen=True, kw_only=True)
class Backend(_Receiver):
    """Another system that contacts are mirrored to, called `name`; `implementation` has the method `push`.

    One call takes `max_batch` contacts at the most, `concurrency` calls run at once, `rate` calls begin in a second
    (all workers together; None: no limit), and a call that takes longer than `timeout` seconds is given up.

    With `newsletters` or `waitlists` the backend wants only contacts that are subscribed to one of those, with
    `wants` only those whose document it says yes to; together, all must agree.
    """

    implementation: Pushes
    newsletters: Sequence[str] = ()
    waitlists: Sequence[str] = ()
    wants: Callable[[Mapping[str, Any]], bool] | None = None

    _kind = "backend"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callable("backend", "push", getattr(self.implementation, "push", None))
        for what in ("newsletters", "waitlists"):
            names = getattr(self, what)
            if isinstance(names, str) or not all(isinstance(name, str) for name in names):
                raise RegistrationError(f"{what} of a backend is a list of names, not {names!r}")
        if self.wants is not None:
            check_callable("backend", "wants", self.wants)

    @property
    def selects(self) -> bool:
        """True when it does not want every contact."""
        return bool(self.newsletters or self.waitlists or self.wants)

    def is_for(self, document: Mapping[str, Any]) -> bool:
        """True when the backend wants the contact. Raises what `wants` raises."""
        lists = (("newsletters", self.newsletters), ("waitlists", self.waitlists))
        for part, names in lists:
            if names and not any(entry["subscribed"] and entry["name"] in names for entry in document[part]):
                return False
        return self.wants is None or bool(self.wants(document))


@dataclass(frozen=True, kw_only=True)
class DeletionHandler(_Receiver):
    """What must forget a person when the service does, called `name`; `implementation` has the method `erase`.

    Limits as those of a `Backend`. Where the implementation has `verify`, too, it is asked `verify_after` seconds
    after an erasure was done.
    """

    implementation: Erases
    verify_after: float = 0.0

    _kind = "deletion handler"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callable("deletion handler", "erase", getattr(self.implementation, "erase", None))
        self._check_number("verify_after", 0, 90 * 86400)

    @property
    def verifies(self) -> bool:
        """True when the implementation can look whether the other system has forgotten."""
        return isinstance(self.implementation, Verifies)
