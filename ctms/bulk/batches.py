"""Bulk work on many addresses in batches, each of which is a transaction.

Committed batches stay committed, whatever stops the work. A second run continues with the rest.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, TypeVar
from uuid import UUID

from psycopg import DataError, IntegrityError, errors

from ctms.bulk.worklist import WorkItem, WorkList
from ctms.database.pool import Connection

T = TypeVar("T")
R = TypeVar("R")

UNKNOWN = "unknown"
FOUND = "found"
"""The outcome, in a dry run, of an address that a contact has."""
BAD_LINE = "bad line"
FAILED = "failed"

MAX_ATTEMPTS = 3
"""The number of attempts for a whole batch, before its halves are tried."""

_WAIT = "SET LOCAL lock_timeout = '2s'"
"""Shorter than that of requests, which may wait for contacts that a waiting batch has locked."""

_RETRYABLE = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled)
"""Errors caused by concurrent transactions: a retry may succeed."""

_CONTACT_ERRORS = (IntegrityError, DataError)
"""Errors caused by a single contact: the others in the batch can be processed."""


class ItemOutcome(NamedTuple):
    """The outcome for an item, with the `problem` if it is `BAD_LINE` or `FAILED`.

    `also_known_in` lists other contacts that have the address as that of their account.
    """

    item: WorkItem
    outcome: str
    email_id: UUID | None = None
    had_fxa: bool | None = None
    had_mofo: bool | None = None
    problem: str | None = None
    also_known_in: tuple[UUID, ...] = ()


Work = Callable[[Connection, Sequence[WorkItem]], list[ItemOutcome]]
"""Processes items with an address, inside the connection's transaction, and returns one or more outcomes for each."""


def process_batches(
    worklist: WorkList,
    work: Work,
    on_commit: Callable[[list[ItemOutcome]], None],
    *,
    batch_size: int,
    pause: float,
    defer_signals: Callable[[], AbstractContextManager[object]],
) -> None:
    """Process the list in batches; call `on_commit` after each commit, then pause for `pause` seconds.

    A batch and its `on_commit` run inside `defer_signals()`, which delays signals that stop the work. Raises
    `psycopg.Error` when the connection is lost or permissions are missing; batches passed to `on_commit` are done.
    """
    for items in worklist.batches(batch_size):
        with defer_signals():
            outcomes = [ItemOutcome(item, BAD_LINE, problem=item.problem) for item in items if item.address is None]
            valid = [item for item in items if item.address is not None]
            outcomes += process_batch(worklist.connection, work, valid, _fail)
            on_commit(sorted(outcomes, key=lambda one: one.item.number))
        if pause:
            time.sleep(pause)


def process_batch(
    connection: Connection,
    work: Callable[[Connection, Sequence[T]], Iterable[R]],
    items: Sequence[T],
    fail: Callable[[T, str], R],
    attempts: int = MAX_ATTEMPTS,
) -> Iterator[R]:
    """Process the items in one transaction, or in several if that fails; yield their results after the commits.

    An item that fails by itself has the result of `fail`, which receives it and the problem.
    """
    if not items:
        return
    for attempt in range(1, attempts + 1):
        try:
            with connection.transaction():
                connection.execute(_WAIT)
                results = list(work(connection, items))
        except (*_RETRYABLE, *_CONTACT_ERRORS) as error:
            problem = _problem(error)
            if isinstance(error, _CONTACT_ERRORS):
                break
            if attempt < attempts:
                time.sleep(random.uniform(0.5, 1.5) * 0.1 * attempt)  # noqa: S311  jitter prevents repeated collisions
        else:
            yield from results
            return
    if len(items) == 1:
        yield fail(items[0], problem)
        return
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        yield from process_batch(connection, work, half, fail, attempts=1)


def _fail(item: WorkItem, problem: str) -> ItemOutcome:
    return ItemOutcome(item, FAILED, problem=problem)


def _problem(error: Exception) -> str:
    """Describe a database error without its message, which may contain values."""
    if isinstance(error, _RETRYABLE):
        return f"others held the contact too long ({type(error).__name__})"
    constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
    return f"the database does not allow it: {constraint or type(error).__name__}"
