"""Sessions of the database server."""

from __future__ import annotations

from typing import Any

import psycopg

from ctms.database.pool import libpq_url
from tests.waiting import wait_until

# Not the server's own processes, such as those of autovacuum, which come and go.
_CLIENTS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"

_WAITING = """
    SELECT count(*) >= %(number)s FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
        AND (%(behind)s::int IS NULL OR %(behind)s = ANY(pg_blocking_pids(pid)))"""


def client_sessions(url: str) -> set[int]:
    """Return the process ids of the sessions in a database. One that was closed just now may be among them."""
    # A connection of its own: a transaction sees the state of its first look only.
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        return {pid for (pid,) in connection.execute(_CLIENTS)} - {connection.info.backend_pid}


def wait_until_someone_waits(url: str, number: int = 1, *, behind: int | None = None) -> None:
    """Wait until so many sessions in a database wait for a lock, of the session `behind` if one is given."""
    values: dict[str, Any] = {"number": number, "behind": behind}
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        wait_until(lambda: connection.execute(_WAITING, values).fetchone() == (True,))
