"""The backends and deletion handlers that the database knows, even if no plugin of this process provides them.

A process without a plugin, mostly since it lacks the plugin's variables, must not change contacts as if the plugin's
system did not exist: it would keep its data. So a service records what its plugins provide, and only an operator
removes it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ctms.database.pool import Connection
from ctms.erasure.models import ErasureTask
from ctms.errors import OperatorError
from ctms.outbox.known import find_known
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.outbox.models import Mirrored, OutboxEntry, Receiver
from ctms.sync.receiver_states import HOOKS, WORDS, registered

BATCH = 10_000
"""Number of rows that one statement of `forget` deletes."""


def _distinct(name: str, table: str, condition: str, query: str) -> str:
    """Return the recursive `query` for the names in a table: from one to the next by one index entry, in any number."""
    return f"""
    {query} (name) AS (
        SELECT min({name}) FROM {table} WHERE {condition}
        UNION ALL
        SELECT (SELECT min({name}) FROM {table} WHERE {condition} AND {name} > one.name) FROM {query} one
        WHERE one.name IS NOT NULL)"""


_OPEN_BACKENDS = _distinct("backend", "erasure_backends", "(pending > 0 OR parked > 0)", "of_backends")
_WAITING_HANDLERS = _distinct("handler", "erasure_tasks", "parked_at IS NULL", "of_waiting")
_PARKED_HANDLERS = _distinct("handler", "erasure_tasks", "parked_at IS NOT NULL", "of_parked")
_AWAITED = f"""
    WITH RECURSIVE {_OPEN_BACKENDS}, {_WAITING_HANDLERS}, {_PARKED_HANDLERS}
    SELECT '{BACKEND}' AS kind, name FROM of_backends WHERE name IS NOT NULL
    UNION SELECT '{HANDLER}', name FROM of_waiting WHERE name IS NOT NULL
    UNION SELECT '{HANDLER}', name FROM of_parked WHERE name IS NOT NULL
    ORDER BY 1, 2"""

_KNOWN = f"""
    WITH RECURSIVE {_distinct("backend", "outbox", "true", "of_backends")}, {_WAITING_HANDLERS}
    SELECT kind, name FROM receivers
    UNION SELECT '{BACKEND}', name FROM of_backends WHERE name IS NOT NULL
    UNION SELECT '{HANDLER}', name FROM of_waiting WHERE name IS NOT NULL
    ORDER BY 1, 2"""

_RECORD = f"""
    INSERT INTO {Receiver.__tablename__} (kind, name, failures)
    SELECT kind, name, 0 FROM unnest(%s::text[], %s::text[]) AS g (kind, name) ORDER BY kind, name
    ON CONFLICT (kind, name) DO NOTHING"""

_IS_AWAITED = {
    BACKEND: "SELECT FROM erasure_backends WHERE backend = %s AND (pending > 0 OR parked > 0) LIMIT 1",
    # Each of the two indexes has a part of the rows.
    HANDLER: f"""
        WITH given AS (SELECT %s AS name)
        SELECT FROM given WHERE EXISTS (
            SELECT FROM {ErasureTask.__tablename__} WHERE handler = given.name AND parked_at IS NULL)
        OR EXISTS (SELECT FROM {ErasureTask.__tablename__} WHERE handler = given.name AND parked_at IS NOT NULL)""",
}
# Not those of an erasure that came after the check. If it is concurrent, the row has another `ctid` afterwards.
_DELETE = """
    WITH batch AS (
        SELECT t.ctid FROM {table} t WHERE t.backend = %(name)s AND NOT EXISTS (
            SELECT FROM erasure_deletions d
            WHERE d.backend = t.backend AND d.email_id = t.email_id AND d.erasure_id IS NOT NULL)
        LIMIT %(limit)s)
    DELETE FROM {table} t USING batch b WHERE t.ctid = b.ctid"""
_AWAITING = {
    BACKEND: "SELECT erasure_id FROM erasure_backends WHERE backend = %s AND (pending > 0 OR parked > 0)",
    HANDLER: f"SELECT DISTINCT erasure_id FROM {ErasureTask.__tablename__} WHERE handler = %s",
}
_DELETE_MERGED = "DELETE FROM erasure_deletions WHERE backend = %(name)s AND erasure_id IS NULL"
_FORGET = f"DELETE FROM {Receiver.__tablename__} WHERE kind = %(kind)s AND name = %(name)s"


def record(connection: Connection) -> None:
    """Record the backends and deletion handlers of this app's plugins; later, `missing` finds them.

    To be called when a service starts: an erasure in a shell without the plugin may come before the first call.
    """
    there = _registered()
    known = find_known(connection)
    if any(name not in known[kind] for kind, name in there):
        connection.execute(_RECORD, ([kind for kind, _ in there], [name for _, name in there]))


def missing(connection: Connection) -> list[tuple[str, str]]:
    """Return the kinds and names of receivers that only the tables know: no plugin of this app registers them."""
    return _not_registered(connection, _KNOWN)


def awaited(connection: Connection) -> list[tuple[str, str]]:
    """Return those that no plugin of this app registers, but for which erasures wait."""
    return _not_registered(connection, _AWAITED)


def describe_missing(connection: Connection) -> str | None:
    """Return the problem with backends and deletion handlers that the database knows and no plugin provides, if any."""
    found = ", ".join(f"the {WORDS[kind]} {name}" for kind, name in missing(connection))
    return f"no enabled plugin provides {found}: changes of contacts would not be sent there" if found else None


def describe_awaited(connection: Connection) -> list[str]:
    """Return a sentence for each of `awaited`."""
    return [f"erasures wait for {WORDS[kind]} {name}, which is not installed" for kind, name in awaited(connection)]


def check_not_awaited(connection: Connection, kind: str, name: str) -> None:
    """Raise `OperatorError` if erasures wait for it."""
    if connection.execute(_IS_AWAITED[kind], (name,)).fetchone() is not None:
        raise OperatorError(
            f"erasures wait for the {WORDS[kind]} {name}: delete the data there manually, then pass --close-erasures,"
            " or end each by `flask ctms erasures close`; `erasures list --unfinished` shows them"
        )


def find_awaiting(connection: Connection, kind: str, name: str) -> list[UUID]:
    """Return the ids of the erasures that wait for it."""
    return [erasure_id for (erasure_id,) in connection.execute(_AWAITING[kind], (name,)).fetchall()]


def forget(connection: Connection, kind: str, name: str) -> int:
    """Delete what the database knows of a backend or deletion handler; return the number of its pending changes.

    Not inside a transaction: there may be many. For one that no plugin provides any more. Raises `OperatorError` if
    erasures wait for it; what they wait for is kept.
    """
    check_not_awaited(connection, kind, name)
    values: dict[str, Any] = {"kind": kind, "name": name, "limit": BATCH}
    number = 0
    if kind == BACKEND:
        connection.execute(_DELETE_MERGED, values)
        for table in (OutboxEntry.__tablename__, Mirrored.__tablename__):
            sql = _DELETE.format(table=table)
            while deleted := connection.execute(sql, values).rowcount:
                number += deleted if table == OutboxEntry.__tablename__ else 0
    check_not_awaited(connection, kind, name)
    connection.execute(_FORGET, values)
    return number


def _registered() -> set[tuple[str, str]]:
    return {(kind, name) for kind in HOOKS for name in registered(kind)}


def _not_registered(connection: Connection, sql: str) -> list[tuple[str, str]]:
    there = _registered()
    return [known for known in connection.execute(sql).fetchall() if known not in there]
