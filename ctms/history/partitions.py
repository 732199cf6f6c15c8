"""The monthly partitions of events. The background service creates them ahead of time.

The default partition takes the events of a month without a partition, so recording never fails.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from psycopg import sql

from ctms.database.pool import Connection
from ctms.history.models import SubscriptionEvent

MONTHS_AHEAD = 3
"""How many months after the current one have a partition at least."""

_TABLE = SubscriptionEvent.__tablename__
_DEFAULT = f"{_TABLE}_default"

_NOW = "SELECT clock_timestamp() AT TIME ZONE 'UTC'"
_EXISTS = "SELECT to_regclass(%s) IS NOT NULL"

# Creating a partition waits for the writers and readers of events, and blocks new ones while it waits.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '2s'"
# Not only the default partition: a statement that waits for that has already looked up which partitions exist. It would
# miss the moved events, or fail to store a new one.
_LOCK = "LOCK TABLE ONLY {parent} IN ACCESS EXCLUSIVE MODE"
_CREATE = "CREATE TABLE {name} (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)"
_MOVE = """
    WITH moved AS (DELETE FROM {default} WHERE recorded_at >= {start} AND recorded_at < {end} RETURNING *)
    INSERT INTO {name} SELECT * FROM moved"""
_ATTACH = "ALTER TABLE {parent} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})"


def create_partitions(connection: Connection, months_ahead: int = MONTHS_AHEAD) -> list[str]:
    """Create the missing partitions of this month and the next ones; return their names.

    Each is created in a transaction of its own, with the events of its month that are in the default partition. Raises
    `psycopg.errors.LockNotAvailable` if statements keep the events locked too long; call it again then.
    """
    (now,) = connection.execute(_NOW).fetchone() or (datetime.now(UTC),)
    created = []
    for number in range(months_ahead + 1):
        start, end = _month(now.date(), number), _month(now.date(), number + 1)
        name = f"{_TABLE}_{start:%Y_%m}"
        if connection.execute(_EXISTS, (name,)).fetchone() == (False,):
            _create(connection, name, start, end)
            created.append(name)
    return created


def _create(connection: Connection, name: str, start: date, end: date) -> None:
    parts = {
        "name": sql.Identifier(name),
        "parent": sql.Identifier(_TABLE),
        "default": sql.Identifier(_DEFAULT),
        "start": sql.Literal(f"{start} 00:00:00+00"),
        "end": sql.Literal(f"{end} 00:00:00+00"),
    }
    with connection.transaction():
        connection.execute(_LOCK_TIMEOUT)
        for statement in (_LOCK, _CREATE, _MOVE, _ATTACH):
            connection.execute(sql.SQL(statement).format(**parts))


def _month(day: date, later: int) -> date:
    """Return the first day of the month that is `later` months after that of `day`."""
    months = day.year * 12 + day.month - 1 + later
    return date(months // 12, months % 12 + 1, 1)
