"""The horizon of feeds, by what the database shows of its writers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.history.feeds import find_horizon, settled

# Temporary tables hide the views of the catalogue.
_HIDE = """
    CREATE TEMPORARY TABLE pg_locks ON COMMIT DROP AS SELECT * FROM pg_locks WITH NO DATA;
    CREATE TEMPORARY TABLE pg_prepared_xacts ON COMMIT DROP AS SELECT * FROM pg_prepared_xacts WITH NO DATA;
    CREATE TEMPORARY TABLE pg_stat_activity ON COMMIT DROP AS SELECT * FROM pg_stat_activity WITH NO DATA;
    INSERT INTO pg_locks (locktype, mode, relation, database, pid)
    SELECT 'relation', 'RowExclusiveLock', 'emails'::regclass, oid, 7 FROM pg_database
    WHERE datname = current_database()"""


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:  # noqa: ARG001  inside the app's transaction
    """A connection that sees one lock on `emails`, of the process 7."""
    with pool.acquire() as acquired:
        acquired.execute(_HIDE)
        yield acquired


def show(connection: Connection, state: str | None, started: str) -> None:
    connection.execute(f"INSERT INTO pg_stat_activity (pid, state, xact_start) VALUES (7, %s, {started})", (state,))


def age(connection: Connection) -> timedelta:
    """Return how long ago the settled instant is."""
    found: Any = settled(connection).fetchone()
    row: Any = connection.execute("SELECT clock_timestamp()").fetchone()
    horizon, now = found[0], row[0]
    assert isinstance(horizon, datetime)
    return timedelta(seconds=round((now - horizon).total_seconds()))


@pytest.mark.parametrize("state", ["active", "idle in transaction", "idle in transaction (aborted)"])
def test_a_writer_holds_it_back_to_its_start(connection: Connection, state: str) -> None:
    show(connection, state, "clock_timestamp() - interval '1 hour'")

    assert age(connection) == timedelta(hours=1)


@pytest.mark.parametrize("state", ["active", "idle"])
def test_a_writer_that_has_ended_since_does_not(connection: Connection, state: str) -> None:
    show(connection, state, "NULL")

    assert age(connection) < timedelta(seconds=30)


@pytest.mark.parametrize("state", [None, "disabled"])
def test_a_writer_whose_start_is_hidden_holds_it_back_for_a_minute(connection: Connection, state: str | None) -> None:
    show(connection, state, "NULL")

    assert timedelta(minutes=1) <= age(connection) < timedelta(minutes=1, seconds=30)


def test_a_writer_that_does_not_exist_any_more_does_not(connection: Connection) -> None:
    assert age(connection) < timedelta(seconds=30)


def test_a_prepared_transaction_holds_it_back_to_a_minute_before(connection: Connection) -> None:
    connection.execute("UPDATE pg_locks SET pid = NULL")
    connection.execute(
        "INSERT INTO pg_prepared_xacts (prepared, database)"
        " VALUES (clock_timestamp() - interval '9 minutes', current_database()),"
        " (clock_timestamp() - interval '99 minutes', 'other')"
    )

    assert age(connection) == timedelta(minutes=10)


def test_a_page_does_not_end_before_its_start(connection: Connection) -> None:
    """A follower has continued from an end at which this transaction had begun, but written nothing yet."""
    show(connection, "active", "clock_timestamp() - interval '1 hour'")
    now = datetime.now(UTC)
    start = now - timedelta(minutes=5)

    assert find_horizon(connection, start, None, None) == (start, start)
    asked_end = start - timedelta(minutes=1)
    assert find_horizon(connection, start, asked_end, None) == (start, asked_end)
    _, end = find_horizon(connection, now + timedelta(days=1), None, None)
    assert end < now + timedelta(hours=1), "a start in the future is no end"
