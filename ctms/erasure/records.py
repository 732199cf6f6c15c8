"""The records of erasures, without personal data: queries and retries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from ctms.database.pool import Connection, ScalarQuery
from ctms.database.rendering import timestamp
from ctms.erasure.handlers import handler_names
from ctms.erasure.models import (
    ErasedAddress,
    Erasure,
    ErasureBackend,
    ErasureDeletion,
    ErasureHandler,
    ErasureTask,
)
from ctms.outbox import deletions
from ctms.outbox.changes import outbox
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.suppression.fingerprints import fingerprints, require_key

BATCH = 2_000
"""Number of contacts that one transaction of `retry_handler` retries."""

PARKED, PENDING, VERIFYING, DONE = "parked", "pending", "verifying", "done"
STATUSES = (PARKED, PENDING, VERIFYING, DONE)
"""The first that applies: an operator must act; deletions are pending; verifications are pending; all is done.

An erasure has the status of the earlier erasures that it follows, if that comes first.
"""

_RENDERED = f"""
    json_build_object(
        'id', e.id, 'requested_at', {timestamp("e.requested_at")}, 'requested_by', e.requested_by,
        'origin', e.origin, 'forget', e.forget, 'contacts', e.contacts, 'unknown', e.unknown,
        'also_known_in', e.also_known_in, 'follows', coalesce(e.follows, '{{}}'),
        'status', CASE
            WHEN w.parked > 0 THEN '{PARKED}' WHEN w.pending > 0 THEN '{PENDING}'
            WHEN EXISTS (SELECT FROM {ErasureTask.__tablename__} WHERE erasure_id = ANY(e.id || e.follows))
            THEN '{VERIFYING}'
            ELSE '{DONE}' END,
        'handlers', h.handlers, 'backends', b.backends)::text"""
_FROM = f"""
    FROM {Erasure.__tablename__} e, LATERAL (
        SELECT coalesce(json_agg(json_build_object(
                'name', h.handler, 'installed', h.handler = ANY(%s), 'pending', h.pending, 'done', h.done,
                'verified', h.verified, 'parked', h.parked, 'reason', h.reason,
                'started_at', {timestamp("h.started_at")},
                'changed_at', {timestamp("h.changed_at")}) ORDER BY h.handler COLLATE "C"), '[]') AS handlers
        FROM {ErasureHandler.__tablename__} h WHERE h.erasure_id = e.id) h, LATERAL (
        SELECT coalesce(json_agg(json_build_object(
                'name', b.backend, 'installed', b.backend = ANY(%s), 'pending', b.pending, 'done', b.done,
                'parked', b.parked, 'reason', b.reason, 'started_at', {timestamp("b.started_at")},
                'changed_at', {timestamp("b.changed_at")}) ORDER BY b.backend COLLATE "C"), '[]') AS backends
        FROM {ErasureBackend.__tablename__} b WHERE b.erasure_id = e.id) b, LATERAL (
        SELECT sum(pending) AS pending, sum(parked) AS parked FROM (
            SELECT pending, parked FROM {ErasureHandler.__tablename__} WHERE erasure_id = ANY(e.id || e.follows)
            UNION ALL SELECT pending, parked FROM {ErasureBackend.__tablename__}
            WHERE erasure_id = ANY(e.id || e.follows)) one) w"""
_NEWEST_FIRST = "ORDER BY e.requested_at DESC, e.id"

_ONE = f"SELECT {_RENDERED} {_FROM} WHERE e.id = %s"
_NEWEST = f"SELECT {_RENDERED} {_FROM} {_NEWEST_FIRST} LIMIT %s"

# One index entry for each erasure to verify, however many contacts it has.
UNFINISHED = f"""
    WITH RECURSIVE to_verify (erasure_id) AS (
        (SELECT erasure_id FROM {ErasureTask.__tablename__} ORDER BY erasure_id LIMIT 1)
        UNION ALL
        SELECT (
            SELECT t.erasure_id FROM {ErasureTask.__tablename__} t WHERE t.erasure_id > one.erasure_id
            ORDER BY t.erasure_id LIMIT 1)
        FROM to_verify one WHERE one.erasure_id IS NOT NULL)
    SELECT erasure_id FROM to_verify WHERE erasure_id IS NOT NULL
    UNION SELECT erasure_id FROM {ErasureHandler.__tablename__} WHERE pending > 0 OR parked > 0
    UNION SELECT erasure_id FROM {ErasureBackend.__tablename__} WHERE pending > 0 OR parked > 0"""
"""The query for the ids of erasures that are not done, except those that only follow others."""

_OPEN = f"""
    SELECT {_RENDERED} {_FROM}
    WHERE e.id = ANY (ARRAY(
        WITH unfinished AS MATERIALIZED ({UNFINISHED})
        SELECT erasure_id FROM unfinished
        UNION ALL SELECT f.id FROM {Erasure.__tablename__} f
        WHERE f.follows && ARRAY(SELECT erasure_id FROM unfinished)))
    {_NEWEST_FIRST} LIMIT %s"""
_OF_ADDRESS = f"""
    SELECT {_RENDERED} {_FROM}
    WHERE e.id IN (SELECT erasure_id FROM {ErasedAddress.__tablename__} WHERE fingerprint = ANY(%s)) {_NEWEST_FIRST}"""

_WITH_FOLLOWED = f"SELECT unnest(id || follows) FROM {Erasure.__tablename__} WHERE id = %s"

# Before the tasks, like the workers that drain them.
_LOCK_HANDLERS = f"""
    SELECT FROM {ErasureHandler.__tablename__} WHERE erasure_id = %(id)s ORDER BY handler FOR NO KEY UPDATE"""
_LOCK_ERASURES = f"""
    SELECT FROM {ErasureHandler.__tablename__} WHERE handler = %(handler)s AND erasure_id = ANY(%(erasures)s)
    ORDER BY erasure_id FOR NO KEY UPDATE"""
_PARKED = f"""
    SELECT id, erasure_id FROM {ErasureTask.__tablename__}
    WHERE handler = %(handler)s AND parked_at IS NOT NULL AND id > %(last)s ORDER BY id LIMIT %(limit)s"""
_RETRY = f"""
    WITH again AS (
        UPDATE {ErasureTask.__tablename__}
        SET parked_at = NULL, reason = NULL, failures = 0, attempts = 0, due_at = clock_timestamp()
        WHERE {{which}} AND parked_at IS NOT NULL RETURNING erasure_id, handler),
    counted AS (SELECT erasure_id, handler, count(*) AS number FROM again GROUP BY erasure_id, handler),
    moved AS (
        UPDATE {ErasureHandler.__tablename__} h
        SET parked = h.parked - c.number, pending = h.pending + c.number, changed_at = clock_timestamp()
        FROM counted c WHERE h.erasure_id = c.erasure_id AND h.handler = c.handler)
    SELECT handler, sum(number)::int FROM counted GROUP BY handler ORDER BY handler"""
_RETRY_ERASURE = _RETRY.format(which="erasure_id = %(id)s")
_RETRY_TASKS = _RETRY.format(which="id = ANY(%(ids)s)")


def _close(numbers: str, waiting: str, column: str) -> tuple[str, str, str]:
    """Return the statements that lock the numbers of one `column`, delete its pending work, and count it as done."""
    of_one = f"erasure_id = %(id)s AND {column} = %(name)s"
    return (
        f"SELECT pending + parked FROM {numbers} WHERE {of_one} FOR NO KEY UPDATE",
        f"DELETE FROM {waiting} WHERE {of_one}",
        f"""UPDATE {numbers} SET
            done = done + pending + parked, pending = 0, parked = 0, reason = %(reason)s, changed_at = clock_timestamp()
        WHERE {of_one}""",
    )


_CLOSE = {
    HANDLER: _close(ErasureHandler.__tablename__, ErasureTask.__tablename__, "handler"),
    BACKEND: _close(ErasureBackend.__tablename__, ErasureDeletion.__tablename__, "backend"),
}


def record(erasure_id: UUID) -> ScalarQuery:
    """Query the record of an erasure, a JSON object."""
    return ScalarQuery(_ONE, (*_installed(), erasure_id))


def find(connection: Connection, erasure_id: UUID) -> dict[str, Any] | None:
    """Return the record of an erasure, if there is one."""
    found = _records(connection, _ONE, erasure_id)
    return found[0] if found else None


def newest(connection: Connection, limit: int, *, unfinished: bool = False) -> list[dict[str, Any]]:
    """Return the newest records, or the newest of those that a handler or backend has not finished or verified.

    One that follows an unfinished erasure is unfinished, too.
    """
    return _records(connection, _OPEN if unfinished else _NEWEST, limit)


def of_address(connection: Connection, address: str) -> list[dict[str, Any]]:
    """Return the records of the erasures of an address, in any spelling, newest first.

    Raises `OperatorError` without a key.
    """
    require_key()
    return _records(connection, _OF_ADDRESS, fingerprints().all_of(address))


class Retried(NamedTuple):
    """The numbers of contacts to retry, by handler and by backend."""

    handlers: dict[str, int]
    backends: dict[str, int]


def retry(connection: Connection, erasure_id: UUID) -> Retried:
    """Retry the parked contacts of the erasure, and of those that it follows; not inside a transaction."""
    handlers: Counter[str] = Counter()
    backends: Counter[str] = Counter()
    for (one,) in connection.execute(_WITH_FOLLOWED, (erasure_id,)).fetchall():
        with connection.transaction():
            connection.execute(_LOCK_HANDLERS, {"id": one})
            handlers.update(dict(connection.execute(_RETRY_ERASURE, {"id": one}).fetchall()))
        backends.update(deletions.retry(connection, one))
    return Retried(handlers, backends)


def retry_handler(connection: Connection, handler: str) -> Iterator[int]:
    """Retry a handler's parked contacts of all erasures; yield the numbers of contacts, batch by batch.

    Each batch is a separate transaction: finished batches are kept after an interruption.
    """
    values: dict[str, Any] = {"handler": handler, "last": 0, "limit": BATCH}
    while rows := connection.execute(_PARKED, values).fetchall():
        values["ids"] = [task for task, _ in rows]
        values["erasures"] = list({erasure_id for _, erasure_id in rows})
        with connection.transaction():
            connection.execute(_LOCK_ERASURES, values)
            moved = connection.execute(_RETRY_TASKS, values).fetchone()
        values["last"] = values["ids"][-1]
        yield moved[1] if moved else 0


def close(connection: Connection, erasure_id: UUID, kind: str, name: str, by: str) -> bool | None:
    """Count the unfinished work of a backend or deletion handler (`kind`) on the erasure as done manually.

    Its pending work is deleted; the record names who closed it. Returns False if nothing was unfinished, and None if it
    has no part in the erasure.
    """
    values = {"id": erasure_id, "name": name, "reason": f"closed by {by}"}
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # there may be a million of them
        lock, delete, count = _CLOSE[kind]
        part = connection.execute(lock, values).fetchone()
        if part is None:
            return None
        if not connection.execute(delete, values).rowcount and not part[0]:
            return False
        connection.execute(count, values)
        return True


def _records(connection: Connection, sql: str, value: Any) -> list[dict[str, Any]]:
    return [json.loads(text) for (text,) in connection.execute(sql, (*_installed(), value)).fetchall()]


def _installed() -> tuple[list[str], list[str]]:
    """Return the names of the deletion handlers and backends of the app, in the order of the statements."""
    return handler_names(), outbox().names
