"""Pending deletions at backends, caused by erasures and merges.

An edit and a deletion share the contact's single row in the outbox, which only records that the backend must receive
the contact. A row of `erasure_deletions` records that the backend must delete it, even if a contact with the same id
exists again. The row is deleted once the backend has confirmed the deletion. A merge deletes a contact without an
erasure; its row names the contact that was kept, so that an erasure of that one includes it.

Lock order: first the rows of the outbox, then those of `erasure_backends` in the order of backend and erasure, then
those of `erasure_deletions` in the order of their ids.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ctms.database.pool import Connection
from ctms.outbox.changes import CHANGED, CHANGED_BY_ID, LIVE

BATCH = 2_000
"""Number of deletions that one transaction of `retry` handles."""


class Deletion(NamedTuple):
    """A pending deletion at a backend, for an erasure, or for a merge (None)."""

    id: int
    erasure_id: UUID | None


class Delay(NamedTuple):
    """The reason why a deletion was not done, and whether it is parked."""

    parked: bool
    reason: str | None


_FIND = "SELECT email_id, id, erasure_id FROM erasure_deletions WHERE backend = %s AND email_id = ANY(%s) ORDER BY id"

_LOCK = """
    SELECT FROM erasure_backends WHERE backend = %s AND erasure_id = ANY(%s)
    ORDER BY erasure_id FOR NO KEY UPDATE"""

# In one order: a merge locks the rows of merged contacts.
_LOCK_DELETIONS = "SELECT FROM erasure_deletions WHERE id = ANY(%s) ORDER BY id FOR UPDATE"

_DONE = """
    WITH gone AS (DELETE FROM erasure_deletions WHERE id = ANY(%(ids)s) RETURNING erasure_id, parked)
    UPDATE erasure_backends b SET
        pending = b.pending - n.pending, parked = b.parked - n.parked, done = b.done + n.pending + n.parked,
        reason = CASE WHEN b.pending + b.parked > n.pending + n.parked THEN b.reason END,
        changed_at = clock_timestamp()
    FROM (
        SELECT erasure_id, count(*) FILTER (WHERE NOT parked) AS pending, count(*) FILTER (WHERE parked) AS parked
        FROM gone GROUP BY erasure_id
    ) n WHERE b.erasure_id = n.erasure_id AND b.backend = %(backend)s"""

_DELAYED = """
    WITH given AS (
        SELECT * FROM unnest(%(ids)s::bigint[], %(parked)s::bool[], %(reasons)s::text[]) AS g (id, parked, reason)),
    before AS (
        SELECT d.id, d.erasure_id, d.parked AS was, g.parked AS now, g.reason
        FROM erasure_deletions d JOIN given g USING (id)),
    moved AS (
        UPDATE erasure_deletions d SET parked = b.now FROM before b WHERE d.id = b.id AND b.was <> b.now)
    UPDATE erasure_backends b SET
        pending = b.pending - n.moved, parked = b.parked + n.moved, reason = coalesce(n.reason, b.reason),
        changed_at = clock_timestamp()
    FROM (
        SELECT erasure_id, sum(now::int - was::int) AS moved, bool_or(was <> now) AS changed, max(reason) AS reason
        FROM before GROUP BY erasure_id
    ) n
    WHERE b.erasure_id = n.erasure_id AND b.backend = %(backend)s AND (n.changed OR n.reason IS NOT NULL)"""

_PARKED = "SELECT id, erasure_id FROM erasure_deletions WHERE backend = %s AND email_id = ANY(%s) AND parked"

_BACKENDS = """
    SELECT backend FROM erasure_backends WHERE erasure_id = %s AND (pending > 0 OR parked > 0) ORDER BY backend"""

# Pending entries of the outbox are tried anyway. A worker of an earlier version does not know these rows, and removes
# the contact from the outbox only.
_STALLED = """
    SELECT d.email_id, d.id, d.erasure_id FROM erasure_deletions d
    WHERE d.erasure_id = %(erasure)s AND d.backend = %(backend)s {behind} AND (d.parked OR NOT EXISTS (
        SELECT FROM outbox o WHERE o.backend = d.backend AND o.email_id = d.email_id))
    ORDER BY d.email_id LIMIT %(limit)s"""
_BEHIND = "AND d.email_id > %(last)s"

# A contact that exists again has no tombstone.
GONE = """(
    WITH RECURSIVE gone (email_id, is_given) AS (
        SELECT unnest(%(email_ids)s::uuid[]), true
        UNION SELECT m.email_id, false FROM gone g CROSS JOIN LATERAL (
            SELECT t.email_id FROM contact_tombstones t WHERE t.merged_into = g.email_id
            UNION ALL SELECT d.email_id FROM erasure_deletions d WHERE d.merged_into = g.email_id) m)
    SELECT g.email_id FROM gone g GROUP BY g.email_id
    HAVING bool_or(g.is_given) OR EXISTS (
        SELECT FROM outbox o WHERE o.backend = ANY(%(backends)s) AND o.email_id = g.email_id))"""
"""The query for the given contacts, and those merged into them, in any number of merges, that are in the outbox."""

_CHANGED = CHANGED.format(contacts=GONE)

_ADD = f"""
    WITH gone AS MATERIALIZED {GONE},
    counted AS (
        INSERT INTO erasure_backends AS b (erasure_id, backend, pending, done, parked, started_at, changed_at)
        SELECT %(erasure)s, name, (SELECT count(*) FROM gone), 0, 0, now, now
        FROM unnest(%(backends)s::text[]) AS name, clock_timestamp() AS now ORDER BY name
        ON CONFLICT (erasure_id, backend) DO UPDATE SET
            pending = b.pending + excluded.pending, changed_at = excluded.changed_at)
    INSERT INTO erasure_deletions (erasure_id, backend, email_id, parked)
    SELECT %(erasure)s, name, gone.email_id, false FROM unnest(%(backends)s::text[]) AS name, gone"""


# Locked in the order of their ids, too.
_MOVE_MERGED = """
    UPDATE erasure_deletions SET merged_into = %(target)s WHERE id = ANY (ARRAY(
        SELECT id FROM erasure_deletions WHERE merged_into = %(source)s ORDER BY id FOR UPDATE))"""
_ADD_MERGED = """
    INSERT INTO erasure_deletions (backend, email_id, merged_into, parked)
    SELECT name, %(source)s, %(target)s, false FROM unnest(%(backends)s::text[]) AS name"""


def add(connection: Connection, erasure_id: UUID, backends: Collection[str], email_ids: Collection[UUID]) -> None:
    """Add these contacts, each of which occurs once, to the outbox, and record that the backends must delete them.

    So they must those that were merged into them, as far as they have not yet. Without any backend it does nothing.
    """
    if backends and email_ids:
        values = {"backends": list(backends), "email_ids": list(email_ids)}
        connection.execute(_CHANGED, {**values, "priority": LIVE})
        connection.execute(_ADD, {**values, "erasure": erasure_id})


def add_merged(connection: Connection, backends: Collection[str], source: UUID, target: UUID) -> None:
    """Record that the backends must delete a contact that was merged, which is in the outbox.

    What was merged into it before, and is still to be deleted, belongs to the target from now on.
    """
    values = {"backends": list(backends), "source": source, "target": target}
    connection.execute(_MOVE_MERGED, values)
    if backends:
        connection.execute(_ADD_MERGED, values)


def find(connection: Connection, backend: str, email_ids: Collection[UUID]) -> dict[UUID, tuple[Deletion, ...]]:
    """Return the pending deletions at the backend, by contact."""
    found: dict[UUID, list[Deletion]] = defaultdict(list)
    for email_id, *deletion in connection.execute(_FIND, (backend, list(email_ids))).fetchall():
        found[email_id].append(Deletion(*deletion))
    return {email_id: tuple(deletions) for email_id, deletions in found.items()}


def settle(connection: Connection, backend: str, done: Collection[Deletion], delayed: Mapping[Deletion, Delay]) -> None:
    """Count deletions as done or delayed. The transaction has locked the contacts' rows of the outbox."""
    if not done and not delayed:
        return
    _lock(connection, backend, (*done, *delayed))
    if done:
        connection.execute(_DONE, {"backend": backend, "ids": [one.id for one in done]})
    if delayed:
        values = {
            "backend": backend,
            "ids": [one.id for one in delayed],
            "parked": [delay.parked for delay in delayed.values()],
            "reasons": [delay.reason for delay in delayed.values()],
        }
        connection.execute(_DELAYED, values)


def unpark(connection: Connection, backend: str, email_ids: Collection[UUID]) -> None:
    """Count the parked deletions of these contacts as pending. The transaction has locked their rows of the outbox."""
    found = [Deletion(*row) for row in connection.execute(_PARKED, (backend, list(email_ids))).fetchall()]
    settle(connection, backend, (), dict.fromkeys(found, Delay(parked=False, reason=None)))


def retry(connection: Connection, erasure_id: UUID) -> dict[str, int]:
    """Retry the erasure's parked deletions at the backends; return the numbers of contacts by backend.

    Each batch is a separate transaction: finished batches are kept after an interruption.
    """
    again: dict[str, int] = {}
    for (backend,) in connection.execute(_BACKENDS, (erasure_id,)).fetchall():
        if number := sum(_retry(connection, erasure_id, backend)):
            again[backend] = number
    return again


def _retry(connection: Connection, erasure_id: UUID, backend: str) -> Iterator[int]:
    values: dict[str, Any] = {"erasure": erasure_id, "backend": backend, "limit": BATCH}
    sql = _STALLED.format(behind="")
    while rows := connection.execute(sql, values).fetchall():
        email_ids: Sequence[UUID] = list(dict.fromkeys(email_id for email_id, *_ in rows))
        with connection.transaction():
            connection.execute(CHANGED_BY_ID, {"priority": LIVE, "backends": [backend], "email_ids": email_ids})
            unpark(connection, backend, email_ids)
        values["last"] = email_ids[-1]
        yield len(email_ids)
        sql = _STALLED.format(behind=_BEHIND)


def _lock(connection: Connection, backend: str, deletions: Iterable[Deletion]) -> None:
    deletions = list(deletions)
    connection.execute(_LOCK, (backend, list({one.erasure_id for one in deletions if one.erasure_id})))
    connection.execute(_LOCK_DELETIONS, ([one.id for one in deletions],))
