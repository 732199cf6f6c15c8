"""Fixtures of the background service's tests: a plugin whose outcomes they choose, and a worker that they drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Any

from ctms.database import pool
from ctms.hooks.receivers import Backend, ContactState, DeletionHandler, Identities
from ctms.outbox.lanes import BACKEND, HANDLER, Lane
from ctms.plugins import Done, TryLater, hookimpl
from ctms.sync.backends import BackendWork
from ctms.sync.erasure_tasks import ErasureWork
from ctms.worker.drain import Drain, Process
from ctms.worker.metrics import WorkerMetrics

Answers = Callable[[Sequence[Any]], Any]


def rows(sql: str, *values: Any) -> list[Any]:
    """Run a statement inside the test's transaction; returns its rows, each a value if it has one column."""
    with pool.acquire() as connection:
        cursor = connection.execute(sql, values or None)
        found = cursor.fetchall() if cursor.description is not None else []
    return [row[0] if len(row) == 1 else row for row in found]


def row(sql: str, *values: Any) -> Any:
    """Return the one row."""
    (found,) = rows(sql, *values)
    return found


class Other:
    """The other system: `copies` are its data, `calls` the ids of each push, `keys` their keys.

    `answer(contacts)` returns the result of a call, or raises; by default all contacts are done. Contacts without
    another outcome are kept.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.copies: dict[str, Mapping[str, Any]] = {}
        self.calls: list[list[str]] = []
        self.gone: list[str] = []
        self.keys: list[str] = []
        self.erased: list[list[str]] = []
        self.verified: list[list[str]] = []
        self.identities: list[Identities] = []
        self.answer: Answers = lambda _: None
        self.verify_answer: Answers = lambda _: None

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Any:
        """Keep the contacts."""
        self.calls.append([contact.email_id for contact in contacts])
        self.keys.append(idempotency_key)
        answer = self.answer(contacts)
        for contact in contacts:
            outcome = answer.get(contact.email_id, TryLater()) if isinstance(answer, Mapping) else answer
            if not isinstance(outcome, Done | None):
                continue
            if contact.document is None:
                self.gone.append(contact.email_id)
                self.copies.pop(contact.email_id, None)
            else:
                self.copies[contact.email_id] = contact.document
        return answer

    def erase(self, identities: Sequence[Identities]) -> Any:
        """Forget these."""
        self.erased.append([str(one["email_id"]) for one in identities])
        self.identities.extend(identities)
        return self.answer(identities)

    def verify(self, identities: Sequence[Identities]) -> Any:
        """Look for these."""
        self.verified.append([str(one["email_id"]) for one in identities])
        return self.verify_answer(identities)


class OnlyErases:
    """The other system, which cannot look."""

    def __init__(self, other: Other) -> None:
        self.erase = other.erase


OTHER = Other()
BACKEND_OTHER = Backend(name="other", implementation=OTHER)
HANDLER_OTHER = DeletionHandler(name="other", implementation=OTHER)


class Plugin:
    """Registers the other system, as both: one app for all tests."""

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Declare the backend."""
        yield BACKEND_OTHER

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Declare the handler."""
        yield HANDLER_OTHER


PLUGIN = Plugin()


class Worker:
    """Works lanes off, in the test's transaction. The options are those of the backend or handler."""

    def __init__(self) -> None:
        self.stopping = Event()
        self.metrics = WorkerMetrics([Lane(BACKEND, "other", 0), Lane(HANDLER, "other", 0)])
        self.process = Process(self.stopping, self.metrics)

    def push(self, *, lane: int = 0, **options: Any) -> None:
        """Drain one lane of the backend."""
        backend = replace(BACKEND_OTHER, **options)
        Drain(self.process, BackendWork(Lane(BACKEND, "other", lane), backend)).run()

    def erase(self, *, lane: int = 0, **options: Any) -> None:
        """Drain one lane of the deletion handler."""
        handler = replace(HANDLER_OTHER, **options)
        Drain(self.process, ErasureWork(Lane(HANDLER, "other", lane), handler)).run()

    def push_later(self, times: int = 1, **options: Any) -> None:
        """Do so after all waits, so many times."""
        for _ in range(times):
            time_passes()
            self.push(**options)

    def erase_later(self, times: int = 1, **options: Any) -> None:
        """Do so after all waits, so many times."""
        for _ in range(times):
            time_passes()
            self.erase(**options)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return self.metrics.registry.get_sample_value(name, {"backend": "other", **labels}) or 0


def time_passes() -> None:
    """Let all delays and cool-downs end."""
    rows("UPDATE outbox SET due_at = least(due_at, clock_timestamp())")
    rows("UPDATE erasure_tasks SET due_at = least(due_at, clock_timestamp())")
    rows("UPDATE receivers SET open_until = NULL")


def waiting() -> list[str]:
    """Return the pending contacts of the backend, oldest first."""
    return [str(one) for one in rows("SELECT email_id FROM outbox WHERE parked_at IS NULL ORDER BY waiting_since")]


def parked() -> dict[str, str]:
    """Return the parked contacts and their reasons."""
    found = rows("SELECT email_id, reason FROM outbox WHERE parked_at IS NOT NULL")
    return {str(email_id): reason for email_id, reason in found}
