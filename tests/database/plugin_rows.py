"""What a database contains of plugins, for tests of commands."""

from __future__ import annotations

from typing import Any

import psycopg

from ctms.database.pool import libpq_url


def query(url: str, sql: str) -> list[Any]:
    with psycopg.connect(libpq_url(url)) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description is not None else []


def tables_of(url: str, schema: str = "plugin_stamps") -> list[str]:
    found = query(url, f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}' ORDER BY 1")
    return [name for (name,) in found]


def permissions_of(url: str) -> dict[str, str | None]:
    """Return whose each permission is."""
    return dict(query(url, "SELECT name, plugin FROM permissions"))


def purges(url: str) -> int:
    """Return how many entries of the audit log record that `stamps` was purged."""
    entries = "SELECT id FROM audit_log WHERE action = 'plugins purge' AND target = 'stamps'"
    return len(query(url, entries))
