"""Write many contacts at once: a fixed number of statements, whatever the number of items.

As in `commands`, everything runs on the caller's connection, inside the caller's transaction. The stored contacts that
the items match are locked in the order of their ids. Then each item is decided on its own (`plan`), so an invalid
or conflicting one does not disturb the others, and the changes of all are written together.

Items that have an identity in common take effect in their order: a later one waits for another *wave*, which reads what
the first has stored. Usually there is one wave. If a concurrent transaction takes an identity after it was looked up,
the wave is rolled back to its savepoint and decided again; if that happens again and again, item by item.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from typing import Any, Self
from uuid import UUID

import psycopg

from ctms.addresses import comparison_key, expand_spellings
from ctms.batches import statements
from ctms.batches.items import CONFLICT, CREATE, BatchItem, BatchResult, Claim
from ctms.batches.plan import Change, StoredContacts, decide
from ctms.batches.rows import raise_errors, write_rows
from ctms.contacts import queries
from ctms.contacts.fields import Message
from ctms.contacts.problems import problem
from ctms.contacts.registry import ADDRESSES, IDENTITIES
from ctms.contacts.tombstones import find_merged_into
from ctms.database.pool import Connection
from ctms.outbox.changes import outbox
from ctms.suppression.check import find_suppressed

MAX_ATTEMPTS = 5
"""Number of attempts of a batch after deadlocks, and of a wave after conflicts with concurrent transactions."""

MAX_OPEN_SAVEPOINTS = 32
"""Number of waves whose savepoints are left open."""

RETRY_SECONDS = 0.05
"""Delay before a batch is written again after a deadlock: at most this, and twice as much each time."""

# `SuppressionCheck` has the locks of this class that are not negative.
LOCK_RETRY = f"SELECT pg_advisory_xact_lock({int.from_bytes(b'CTMS')}, -1)"
"""Locks out other batches that are written again after a deadlock, until the transaction ends."""

_DEADLOCKS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


class _LostRaceError(Exception):
    """A concurrent transaction took an identity after it was looked up."""


class _BusyError(Exception):
    """A later wave needs a contact that a concurrent transaction has locked."""


def write(connection: Connection, items: Sequence[BatchItem]) -> list[BatchResult]:
    """Write the items in their order, and return the result of each.

    After a deadlock the batch is written again, one such batch at a time. Raises `psycopg.OperationalError` if that
    keeps happening.
    """
    for attempt in range(MAX_ATTEMPTS):
        try:
            with connection.transaction():
                if attempt:
                    # Before all other locks. Else batches that change the same addresses would meet in one deadlock
                    # after the other, each of which lasts for a second.
                    connection.execute(LOCK_RETRY)
                return _write(connection, items, is_last=attempt + 1 == MAX_ATTEMPTS)
        except (_BusyError, *_DEADLOCKS):
            if attempt + 1 == MAX_ATTEMPTS:
                raise
        time.sleep(random.uniform(0, RETRY_SECONDS * 2**attempt))  # noqa: S311
    raise AssertionError


def _write(connection: Connection, items: Sequence[BatchItem], *, is_last: bool) -> list[BatchResult]:
    # Before any lock, as `find_suppressed` requires.
    wanted = {value for item in items for value in _addresses(item)}
    suppressed = set(map(comparison_key, find_suppressed(connection, wanted)))
    results: dict[int, BatchResult] = {}
    changed: set[UUID] = set()
    pending = dict(enumerate(items))
    with _Savepoints(connection) as savepoints:
        while pending:
            # To wait for a contact with others locked, out of the order of their ids, is the way into a deadlock.
            waits = is_last or not results
            done, ids = _write_some(connection, pending, suppressed, savepoints, waits=waits)
            results |= done
            changed |= ids
            pending = {position: item for position, item in pending.items() if position not in done}
        outbox().changed(connection, sorted(changed))
        raise_errors(connection)
    return [results[position] for position in range(len(items))]


class _Savepoints:
    """A context with a savepoint for each wave, which is left open until the end: up to `MAX_OPEN_SAVEPOINTS`.

    Who waits for a row that was locked behind a released savepoint waits for the end of the whole transaction, even if
    it is rolled back to an earlier savepoint. After a deadlock the others would never continue. PostgreSQL searches all
    open savepoints for each row version, so there is a limit.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._left_open = ExitStack()
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._left_open.__exit__(*error)

    @contextmanager
    def add(self) -> Iterator[None]:
        """Roll back to where this context began if it raises."""
        with ExitStack() as savepoint:
            savepoint.enter_context(self._connection.transaction())
            yield
            if self._number < MAX_OPEN_SAVEPOINTS:
                self._number += 1
                self._left_open.push(savepoint.pop_all())


Written = tuple[dict[int, BatchResult], set[UUID]]
"""The results of items, by position, and the ids of the changed contacts."""


def _write_some(
    connection: Connection,
    pending: Mapping[int, BatchItem],
    suppressed: Set[str],
    savepoints: _Savepoints,
    *,
    waits: bool,
) -> Written:
    """Write a wave, or the first item alone if concurrent transactions keep taking identities.

    That item is in conflict if they keep taking its identities.
    """
    position, item = next(iter(pending.items()))
    for some in [pending] * MAX_ATTEMPTS + [{position: item}] * MAX_ATTEMPTS:
        try:
            with savepoints.add():
                return _write_wave(connection, some, suppressed, waits=waits)
        except (_LostRaceError, psycopg.errors.UniqueViolation):
            continue
    contended = problem(["contact"], Message("Another contact has one of the values", "taken"))
    return {position: BatchResult(CONFLICT, problems=[contended])}, set()


def _write_wave(
    connection: Connection, pending: Mapping[int, BatchItem], suppressed: Set[str], *, waits: bool
) -> Written:
    """Write the items that depend on no change of an earlier one; return their results and the ids of changed contacts.

    An item depends on an earlier one if both have an identity in common, or concern the same contact.
    """
    found = _look_up(connection, pending.values(), suppressed, waits=waits)
    results: dict[int, BatchResult] = {}
    changes: list[Change] = []
    changing: set[Claim] = set()
    for position, item in pending.items():
        holders = {one for claim in item.claims for one in found.holders.get(claim, ())}
        claims = item.claims | {("email_id", str(one)) for one in holders}
        if changing.isdisjoint(claims):
            results[position], change = decide(item, found)
            if change is None:
                continue
            changes.append(change)
        changing |= claims
    if changes and write_rows(connection, changes) != sum(change.is_new for change in changes):
        raise _LostRaceError
    return results, {change.email_id for change in changes}


def _look_up(
    connection: Connection, items: Iterable[BatchItem], suppressed: Set[str], *, waits: bool
) -> StoredContacts:
    """Lock the contacts that the items match, and find out what is stored.

    The identities are looked up again after the lock, because they may have changed while it was awaited.
    """
    items = list(items)
    targets = _targets(items, _find_holders(connection, items))
    if targets:
        _lock(connection, sorted(targets), waits=waits)
    holders = _find_holders(connection, items)
    if not _targets(items, holders) <= targets:
        raise _LostRaceError
    documents = queries.documents_by_id(connection, targets) if targets else {}
    gone = targets - documents.keys()
    missing = {
        item.match[1]
        for item in items
        if item.match and item.match[0] == "email_id" and not holders.get(("email_id", str(item.match[1])))
    }
    merged = find_merged_into(connection, missing) if missing else {}
    return StoredContacts({claim: ids - gone for claim, ids in holders.items()}, documents, merged, suppressed)


def _lock(connection: Connection, targets: Sequence[UUID], *, waits: bool) -> None:
    """Lock the contacts. Unless it `waits`, raises `_BusyError` if one is locked by others, or was deleted."""
    if waits:
        connection.execute(statements.LOCK, (targets,))
    elif len(connection.execute(statements.LOCK_AT_ONCE, (targets,)).fetchall()) < len(targets):
        raise _BusyError


def _targets(items: Iterable[BatchItem], holders: Mapping[Claim, Set[UUID]]) -> set[UUID]:
    """Return the contacts that the items match; for `create`, all whose identities are in the item."""
    found: set[UUID] = set()
    for item in items:
        claims = item.claims if item.mode == CREATE else filter(None, [item.claim])
        for claim in claims:
            found |= holders.get(claim, frozenset())
    return found


def _find_holders(connection: Connection, items: Iterable[BatchItem]) -> dict[Claim, Set[UUID]]:
    """Return the contacts with the matched identities, and with those in the items that only one contact may have."""
    wanted: dict[str, dict[Claim, Any]] = defaultdict(dict)
    for item in items:
        if item.match is not None and item.claim is not None:
            wanted[item.match[0]][item.claim] = item.match[1]
        for claim, value in item.identities.items():
            if IDENTITIES[claim[0]].unique_constraints:
                wanted[claim[0]].setdefault(claim, value)
    cursors = []
    for name, values in sorted(wanted.items()):
        if name in ADDRESSES:
            positions, texts = expand_spellings(values.values())
        else:
            positions, texts = list(range(len(values))), [str(value) for value in values.values()]
        cursors.append((list(values), connection.execute(statements.find_holders(name), (positions, texts))))
    holders: dict[Claim, set[UUID]] = defaultdict(set)
    for order, cursor in cursors:
        for position, email_id in cursor.fetchall():
            holders[order[position]].add(email_id)
    return dict(holders)


def _addresses(item: BatchItem) -> Iterator[str]:
    """Yield the addresses that the item may store."""
    if item.match is not None and item.match[0] in ADDRESSES:
        yield item.match[1]
    yield from (value for (name, _), value in item.identities.items() if name in ADDRESSES)
