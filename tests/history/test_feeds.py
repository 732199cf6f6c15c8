"""The horizon of feeds, by what the database shows of its writers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.history.feeds import settled

# Temporary tables hide the views of the catalogue.
_HIDE = """
    CREATE TEMPORARY TABLE pg_locks ON COMMIT DROP AS SELECT * FROM pg_locks WITH NO DATA;
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
