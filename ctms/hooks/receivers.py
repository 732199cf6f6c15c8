"""Other systems that receive contacts: backends, which store copies, and deletion handlers, which erase people.

The background service (`flask ctms worker`) calls them; it is responsible for the outbox, order, batches, retries,
rates, timeouts, logs and metrics. They return the outcome for each contact.
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
    """Temporary failure: retry after `after` seconds; None means backoff by the service."""

    after: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class SlowDown:
    """Rate limit: do not call for `after` seconds, for any contact."""

    after: float
    reason: str = ""


@dataclass(frozen=True)
class Refused:
    """Permanent failure: park the contact until it changes or an operator retries it.

    `reason` is for operators and groups parked contacts: it must not contain personal data.
    """

    reason: str


@dataclass(frozen=True)
class Accepted:
    """The other system has begun the erasure; ask again after `after` seconds. Only for deletion handlers."""

    after: float


@dataclass(frozen=True)
class Pause:
    """Stop calling until an operator resumes: the other system wants no calls. Pending work is kept."""

    reason: str


Outcome = Done | TryLater | SlowDown | Refused | Accepted | Pause
Outcomes = Outcome | Mapping[str, Outcome] | None
"""The result of a call: one outcome for all, or one for each `email_id`; None means done.

Contacts missing from a mapping are retried later.
"""

Identities = Mapping[str, str | None]
"""The identities of a contact as returned by `GET /identity/{email_id}`."""


@dataclass(frozen=True)
class ContactState:
    """The current state of a contact: `document` as returned by `GET /ctms/{email_id}`, None if the contact is gone.

    A contact is gone if it was deleted, or if a backend that selects contacts no longer wants it.
    """

    email_id: str
    document: Mapping[str, Any] | None

    @property
    def gone(self) -> bool:
        """True if the other system must not have it."""
        return self.document is None


@runtime_checkable
class Pushes(Protocol):
    """The interface of a backend: `push` sends the full state of contacts. `fetch` is optional."""

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Outcomes:
        """Make the other system's copies equal to `contacts`, each of which occurs once.

        Retries of the same states have the same key. Any exception counts as `TryLater`; five for one contact alone
        count as refused, except `OSError` (a network failure), which never does.
        """


@runtime_checkable
class Fetches(Protocol):
    """The interface of a backend that supports comparison."""

    def fetch(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the other system's data, by `email_id`: the parts of the document that it stores."""


@runtime_checkable
class Erases(Protocol):
    """The interface of a deletion handler: `erase` erases people in the other system. `verify` is optional."""

    def erase(self, identities: Sequence[Identities]) -> Outcomes:
        """Erase these contacts; unknown ones count as done. Exceptions are handled as for `Pushes.push`."""


@runtime_checkable
class Verifies(Protocol):
    """The interface of a deletion handler that can verify erasures."""

    def verify(self, identities: Sequence[Identities]) -> Outcomes:
        """Return `Done` if nothing is left, `TryLater` if the other system is still processing, else `Refused`."""


@dataclass(frozen=True, kw_only=True)
class _Receiver:
    """The common attributes of backends and deletion handlers."""

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
        """The numbers of the calls that may run concurrently: a contact always uses the same lane."""
        return range(self.concurrency)


@dataclass(frozen=True, kw_only=True)
class Backend(_Receiver):
    """Another system that contacts are synced to, called `name`; `implementation` has the method `push`.

    A call takes at most `max_batch` contacts, at most `concurrency` calls run concurrently, at most `rate` calls begin
    per second (all workers together; None: no limit), and a call times out after `timeout` seconds.

    With `newsletters` or `waitlists` the backend wants only contacts that are subscribed to one of those, with `wants`
    only those for whose document it returns true; together, all must match.
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
        """True if it selects contacts."""
        return bool(self.newsletters or self.waitlists or self.wants)

    def is_for(self, document: Mapping[str, Any]) -> bool:
        """Return whether the backend wants the contact. Raises the exceptions of `wants`."""
        lists = (("newsletters", self.newsletters), ("waitlists", self.waitlists))
        for part, names in lists:
            if names and not any(entry["subscribed"] and entry["name"] in names for entry in document[part]):
                return False
        return self.wants is None or bool(self.wants(document))


@dataclass(frozen=True, kw_only=True)
class DeletionHandler(_Receiver):
    """A handler that erases people in another system, called `name`; `implementation` has the method `erase`.

    Limits are those of a `Backend`. If the implementation has `verify`, it is called `verify_after` seconds after an
    erasure is done.
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
        """True if the implementation can verify erasures."""
        return isinstance(self.implementation, Verifies)
