"""Backends that have received every contact: since when, and which ones have not.

The outbox contains the contacts that change while a backend's plugin is on. Existing ones are pushed only by a resync
of all contacts. `receivers.synchronised_at` is the time since which nothing is missing: the end of such a resync, or
the first start of a worker, if every contact was already pending for the backend.
"""

from __future__ import annotations

from collections.abc import Collection

from ctms.database.pool import Connection
from ctms.outbox.lanes import BACKEND

# If contacts are missing, the first scanned ones show it. All are scanned only before the first start of a worker, when
# all of them are pending.
_LEFT_OUT = """EXISTS (
    SELECT FROM emails e
    WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.backend = b.name AND o.email_id = e.email_id))"""
_UNSYNCHRONISED = f"""
    FROM unnest(%(names)s::text[]) AS b (name)
    WHERE NOT EXISTS (
        SELECT FROM receivers r WHERE r.kind = '{BACKEND}' AND r.name = b.name AND r.synchronised_at IS NOT NULL)"""
_FIND = f"SELECT b.name {_UNSYNCHRONISED} AND {_LEFT_OUT} ORDER BY b.name"
_RECORD = f"""
    INSERT INTO receivers AS r (kind, name, failures, synchronised_at)
    SELECT '{BACKEND}', b.name, 0, clock_timestamp() {{which}} ORDER BY b.name
    ON CONFLICT (kind, name) DO UPDATE SET synchronised_at = excluded.synchronised_at"""
_RECORD_COMPLETE = _RECORD.format(which=f"{_UNSYNCHRONISED} AND NOT {_LEFT_OUT}")
_RECORD_ALL = _RECORD.format(which="FROM unnest(%(names)s::text[]) AS b (name)")


def find_unsynchronised(connection: Connection, backends: Collection[str]) -> list[str]:
    """Return those of the backends that never had a resync of all contacts and lack some of them."""
    return _execute(connection, _FIND, backends)


def record_complete(connection: Connection, backends: Collection[str]) -> None:
    """Record as synchronised those of the backends for which every contact is pending.

    To be called before a worker drains the outbox for the first time: afterwards this is unknown.
    """
    _execute(connection, _RECORD_COMPLETE, backends)


def record_resync(connection: Connection, backend: str) -> None:
    """Record the end of a resync of all contacts."""
    connection.execute(_RECORD_ALL, {"names": [backend]})


def _execute(connection: Connection, sql: str, backends: Collection[str]) -> list[str]:
    if not backends:
        return []
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # all contacts may have to be scanned
        cursor = connection.execute(sql, {"names": list(backends)})
        return [name for (name,) in cursor.fetchall()] if cursor.description else []
