"""The monthly partitions of events."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg import sql

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.history import partitions
from ctms.worker.housekeeping import run_jobs
from tests.contacts.rows import execute, insert, insert_contact
from tests.races import PATIENCE
from tests.sessions import wait_until_someone_waits

PARTITIONS = """
    SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'subscription_events'::regclass ORDER BY 1"""


def names() -> set[str]:
    found: Any = execute(f"SELECT array_agg(relname::text) FROM ({PARTITIONS}) p")
    return set(found)


def name_of(months: int) -> str:
    """Return the name of the partition some months from now."""
    found: str = execute(
        "SELECT 'subscription_events_' ||"
        " to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => :months), 'YYYY_MM')",
        months=months,
    )
    return found


@pytest.fixture
def connection(app: Flask) -> Any:  # noqa: ARG001  inside the app's transaction
    with pool.acquire() as acquired:
        yield acquired


def test_a_migrated_database_has_partitions_for_the_next_months(app: Flask) -> None:  # noqa: ARG001
    assert {name_of(months) for months in range(4)} <= names()


def test_missing_partitions_are_created(connection: Connection) -> None:
    assert partitions.create_partitions(connection, months_ahead=14) == [name_of(month) for month in range(4, 15)]
    assert partitions.create_partitions(connection, months_ahead=14) == []
    assert {name_of(13), name_of(14), "subscription_events_default"} <= names()


def test_events_of_a_month_without_a_partition_are_kept_and_move_to_it(connection: Connection) -> None:
    this_month = name_of(0)
    connection.execute(
        sql.SQL("ALTER TABLE subscription_events DETACH PARTITION {}").format(sql.Identifier(this_month))
    )
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(this_month)))
    email_id = insert_contact()
    insert("newsletters", email_id=email_id, name="hubs", subscribed=True)
    assert execute("SELECT tableoid::regclass::text FROM subscription_events WHERE email_id = :id", id=email_id) == (
        "subscription_events_default"
    )

    assert partitions.create_partitions(connection) == [this_month]

    found = "SELECT tableoid::regclass::text FROM subscription_events WHERE email_id = :id"
    assert execute(found, id=email_id) == this_month
    insert("newsletters", email_id=email_id, name="other", subscribed=True)
    assert execute("SELECT count(*) FROM subscription_events_default") == 0
    # As indexed as the others: the history of a contact and the feed do not scan partitions.
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = :name"
    assert execute(indexes, name=this_month) == execute(indexes, name=name_of(1))


def test_the_background_service_creates_them(connection: Connection) -> None:
    next_month = name_of(1)
    for statement in ("ALTER TABLE subscription_events DETACH PARTITION {}", "DROP TABLE {}"):
        connection.execute(sql.SQL(statement).format(sql.Identifier(next_month)))
    assert next_month not in names()

    run_jobs(Event())

    assert next_month in names()


@pytest.mark.parametrize(
    ("day", "later", "first"),
    [("2026-11-30", 0, "2026-11-01"), ("2026-11-30", 1, "2026-12-01"), ("2026-11-30", 2, "2027-01-01"),
     ("2026-12-31", 13, "2028-01-01")],
)  # fmt: skip
def test_the_months(day: str, later: int, first: str) -> None:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)

    assert str(partitions._month(moment.date(), later)) == first


def test_a_busy_default_partition_is_given_up_and_left_as_it_was(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as creator, psycopg.connect(url) as writer:
        writer.execute("SELECT FROM subscription_events_default FOR UPDATE")
        before = creator.execute(PARTITIONS).fetchall()

        with pytest.raises(psycopg.errors.LockNotAvailable):
            partitions.create_partitions(creator, months_ahead=30)

        assert creator.execute(PARTITIONS).fetchall() == before


@pytest.fixture
def url(migrated_app: Flask) -> str:
    found: str = pool.libpq_url(migrated_app.config["SQLALCHEMY_DATABASE_URI"])
    return found


EVENT = "e0000000-0000-0000-0000-00000000e7e7"
"""The contact of the event that moves."""

Reads = Callable[[psycopg.Connection[Any]], Any]


def _list(connection: psycopg.Connection[Any]) -> Any:
    found = connection.execute("SELECT count(*) FROM subscription_events WHERE email_id = %s", (EVENT,))
    return found.fetchone()


def _erase(connection: psycopg.Connection[Any]) -> Any:
    connection.execute("DELETE FROM emails WHERE email_id = %s", (EVENT,))
    return _list(connection)


def _record(connection: psycopg.Connection[Any]) -> Any:
    connection.execute(_INSERT)
    return _list(connection)


_INSERT = f"""
    INSERT INTO subscription_events (recorded_at, email_id, kind, action)
    VALUES (clock_timestamp() + interval '13 months', '{EVENT}', 'newsletter', 'subscribed')"""


@pytest.mark.parametrize(("use", "expected"), [(_list, 1), (_erase, 0), (_record, 2)])
def test_events_that_move_are_seen_by_concurrent_statements(
    monkeypatch: pytest.MonkeyPatch, url: str, use: Reads, expected: int
) -> None:
    """A page of `/events`, an erasure, and a writer, which begin while the events of a month move to its partition."""
    monkeypatch.setattr(partitions, "_LOCK_TIMEOUT", f"SET LOCAL lock_timeout = '{PATIENCE}s'")
    with (
        psycopg.connect(url, autocommit=True) as creator,
        psycopg.connect(url) as blocker,
        psycopg.connect(url, autocommit=True) as other,
        ThreadPoolExecutor(2) as threads,
    ):
        creator.execute("INSERT INTO emails (email_id, primary_email) VALUES (%s, 'moves@example.com')", (EVENT,))
        creator.execute(_INSERT)
        blocker.execute("LOCK TABLE subscription_events_default IN ROW SHARE MODE")
        creation = threads.submit(partitions.create_partitions, creator, 14)
        try:
            wait_until_someone_waits(url)
            using = threads.submit(use, other)
            wait_until_someone_waits(url, 2)
            blocker.rollback()

            assert using.result(PATIENCE) == (expected,)
        finally:
            blocker.rollback()
            for name in creation.result(PATIENCE):
                creator.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            creator.execute("DELETE FROM emails WHERE email_id = %s", (EVENT,))
            creator.execute("DELETE FROM contact_tombstones WHERE email_id = %s", (EVENT,))
