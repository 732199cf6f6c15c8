"""Bulk work: many addresses, batch by batch, each batch a transaction of its own.

What is committed stays, whatever ends the work; done again, it goes on with what is left.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple
from uuid import UUID

from psycopg import DataError, IntegrityError, errors

from ctms.bulk.worklist import Item, WorkList
from ctms.pool import Connection

UNKNOWN = "unknown"
FOUND = "found"
"""What a dry run says of an address that is a contact's."""
BAD_LINE = "bad line"
FAILED = "failed"

MAX_ATTEMPTS = 3
"""How often a batch is tried as it is, before it is tried in halves."""

_WAIT = "SET LOCAL lock_timeout = '2s'"
"""Shorter than that of requests: who waits for a contact holds others, for which requests may wait."""

_IN_THE_WAY = (errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled)
"""It will work, or may, when others have done what they are doing."""

_OF_A_CONTACT = (IntegrityError, DataError)
"""Something about one contact: the others can be done."""


class Outcome(NamedTuple):
    """What became of an item; `problem` says why when it is `BAD_LINE` or `FAILED`.

    `also_known_in` are other contacts that carry the address as that of their account.
    """

    item: Item
    outcome: str
    email_id: UUID | None = None
    had_fxa: bool | None = None
    had_mofo: bool | None = None
    problem: str | None = None
    also_known_in: tuple[UUID, ...] = ()


Work = Callable[[Connection, Sequence[Item]], list[Outcome]]
"""Works on items with an address, inside the transaction of the connection; gives each an outcome, or several."""


def work_off(
    worklist: WorkList,
    work: Work,
    told: Callable[[list[Outcome]], None],
    *,
    batch_size: int,
    pause: float,
    whole: Callable[[], AbstractContextManager[object]],
) -> None:
    """Work the list off in batches; `told` is called after the commit of each, then it rests for `pause` seconds.

    A batch, and telling of it, happens within `whole()`: what stops the work must wait so long. Raises
    `psycopg.Error` when the database is lost or does not allow it; what was told of is done then.
    """
    for items in worklist.batches(batch_size):
        with whole():
            outcomes = [Outcome(item, BAD_LINE, problem=item.problem) for item in items if item.address is None]
            outcomes += _done(worklist.connection, work, [item for item in items if item.address is not None])
            told(sorted(outcomes, key=lambda one: one.item.number))
        if pause:
            time.sleep(pause)


def _done(connection: Connection, work: Work, items: list[Item], attempts: int = MAX_ATTEMPTS) -> Iterator[Outcome]:
    """Work on the items in a transaction, in several where something is in the way; one that stays there fails."""
    if not items:
        return
    for attempt in range(1, attempts + 1):
        try:
            with connection.transaction():
                connection.execute(_WAIT)
                outcomes = work(connection, items)
        except (*_IN_THE_WAY, *_OF_A_CONTACT) as error:
            problem = _problem(error)
            if isinstance(error, _OF_A_CONTACT):
                break
            if attempt < attempts:
                time.sleep(random.uniform(0.5, 1.5) * 0.1 * attempt)  # noqa: S311  so that two do not meet again
        else:
            yield from outcomes
            return
    if len(items) == 1:
        yield Outcome(items[0], FAILED, problem=problem)
        return
    middle = len(items) // 2
    for half in (items[:middle], items[middle:]):
        yield from _done(connection, work, half, attempts=1)


def _problem(error: Exception) -> str:
    """Say what an error of the database is about, without its message, which may repeat values."""
    if isinstance(error, _IN_THE_WAY):
        return f"others held the contact too long ({type(error).__name__})"
    constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
    return f"the database does not allow it: {constraint or type(error).__name__}"
