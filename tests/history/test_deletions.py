"""The purge of recorded deletions, and the plan of the query that lists them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from ctms.contacts import updates
from ctms.contacts.updates import statement_with_deletions
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import Gone
from ctms.history import deletions
from ctms.history.feeds import Position
from ctms.worker import housekeeping
from tests.plans import plan_of


@pytest.fixture
def connection(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    """A connection inside the test's transaction, without recorded deletions; they are kept for 30 days."""
    monkeypatch.setitem(app.extensions, "ctms.settings", replace(app.extensions["ctms.settings"], tombstone_days=30))
    with pool.acquire() as acquired:
        acquired.execute("DELETE FROM contact_tombstones")
        acquired.execute("DELETE FROM emails")
        acquired.execute("DELETE FROM contact_tombstones")
        acquired.execute("UPDATE deletion_feed SET recorded_since = now() - interval '1 year'")
        yield acquired


def fill(connection: Connection, days: list[float]) -> None:
    """Insert a tombstone, and a contact whose `mofo_relevant` changed, so many days ago."""
    days = [float(number) for number in days]
    connection.execute(
        "INSERT INTO contact_tombstones (email_id, deleted_at)"
        " SELECT gen_random_uuid(), now() - d * interval '1 day' FROM unnest(%s::float[]) d",
        (days,),
    )
    connection.execute(
        """
        WITH contacts AS (
            INSERT INTO emails (email_id, primary_email)
            SELECT gen_random_uuid(), 'purge-' || n || '@example.com' FROM generate_series(1, %s) n RETURNING email_id)
        INSERT INTO mofo_relevance_changes (email_id, changed_at)
        SELECT c.email_id, now() - d.d * interval '1 day'
        FROM (SELECT email_id, row_number() OVER () AS n FROM contacts) c
        JOIN unnest(%s::float[]) WITH ORDINALITY AS d (d, n) USING (n)""",
        (len(days), days),
    )


def ages(connection: Connection) -> tuple[list[float], list[float]]:
    """Return the ages of the tombstones and of the changes, in days."""
    tombstones, changes = (
        connection.execute(
            f"SELECT round(extract(epoch FROM now() - {column}) / 86400, 2)::float FROM {table} ORDER BY 1"
        ).fetchall()
        for table, column in deletions._TABLES.items()
    )
    return [age for (age,) in tombstones], [age for (age,) in changes]


def value(connection: Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def test_old_records_are_purged_in_batches(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "BATCH", 3)
    fill(connection, [0, 29.9, 30.1, 31, 40, 40, 40, 300])

    number = deletions.purge(connection, Event())

    assert number == 12
    assert ages(connection) == ([0, 29.9], [0, 29.9])
    assert value(connection, "SELECT count(*) FROM emails") == 8


def test_a_reader_of_purged_deletions_is_refused_even_if_more_days_are_kept_since(
    app: Flask, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    deletions.purge(connection, Event())
    monkeypatch.setitem(app.extensions, "ctms.settings", replace(app.extensions["ctms.settings"], tombstone_days=90))
    now = value(connection, "SELECT now()")

    deletions.require_recorded(connection, now - timedelta(days=29))
    with pytest.raises(Gone):
        deletions.require_recorded(connection, now - timedelta(days=31))


def test_a_purge_while_a_page_is_read_is_noticed(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a worker that keeps fewer days. The page may lack what was purged, so it must not be returned."""
    fill(connection, [25])
    start = value(connection, "SELECT now() - interval '29 days'")
    query: dict[str, Any] = {"start": start, "end": None, "limit": 10, "after": None, "mofo_relevant": None}
    assert len(updates.page_with_deletions(connection, **query).deleted) == 1

    def purge_first(*arguments: Any) -> Any:
        connection.execute("UPDATE deletion_feed SET recorded_since = now() - interval '20 days'")
        connection.execute("DELETE FROM contact_tombstones")
        return statement_with_deletions(*arguments)

    monkeypatch.setattr(updates, "statement_with_deletions", purge_first)
    with pytest.raises(Gone):
        updates.page_with_deletions(connection, **query)


def test_the_start_of_the_records_never_goes_back(connection: Connection) -> None:
    connection.execute("UPDATE deletion_feed SET recorded_since = now() - interval '2 days'")
    fill(connection, [3])

    deletions.purge(connection, Event())

    assert value(connection, "SELECT recorded_since = now() - interval '2 days' FROM deletion_feed")
    assert ages(connection) == ([], [])  # no reader is shown these any more


def test_a_purge_stops_between_two_batches(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    class StopAfterOne(Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 1

    monkeypatch.setattr(deletions, "BATCH", 2)
    fill(connection, [40, 40, 40, 40, 40])

    assert deletions.purge(connection, StopAfterOne()) == 2


def test_the_worker_purges(connection: Connection) -> None:
    fill(connection, [40, 1])

    housekeeping.run_jobs(Event())

    assert ages(connection) == ([1], [1])


@pytest.mark.parametrize("days", [1, 36500])
def test_every_allowed_number_of_days_is_computed(
    app: Flask, connection: Connection, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    monkeypatch.setitem(app.extensions, "ctms.settings", replace(app.extensions["ctms.settings"], tombstone_days=days))

    deletions.purge(connection, Event())
    deletions.require_recorded(connection, datetime.now(UTC))


def test_a_page_reads_from_the_indexes_in_their_order(connection: Connection) -> None:
    many = 5000
    connection.execute(
        "INSERT INTO contact_tombstones SELECT gen_random_uuid(), now() - n * interval '1 s'"
        " FROM generate_series(1, %s) n",
        (many,),
    )
    connection.execute(
        """
        WITH contacts AS (
            INSERT INTO emails (email_id, primary_email, update_timestamp)
            SELECT gen_random_uuid(), 'page-' || n || '@example.com', now() - n * interval '1 s'
            FROM generate_series(1, %s) n RETURNING email_id, update_timestamp),
        relevant AS (
            INSERT INTO mofo (email_id, mofo_relevant) SELECT email_id, random() < 0.5 FROM contacts)
        SELECT 1""",
        (many,),
    )
    connection.execute(
        "INSERT INTO mofo_relevance_changes SELECT email_id, update_timestamp FROM emails ON CONFLICT (email_id)"
        " DO UPDATE SET changed_at = excluded.changed_at"
    )
    connection.execute("ANALYZE emails, mofo, contact_tombstones, mofo_relevance_changes")
    start, end = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)
    position = Position(datetime.now(UTC) - timedelta(hours=3), UUID(int=0), end)

    for after in (None, position):
        for relevant in (None, True):
            sql, values = statement_with_deletions(start, end, 100, after, relevant)
            plan = plan_of(connection, f"(ANALYZE) {sql}", values)
            for index in ("bulk_read_index", "idx_contact_tombstones_deleted_at"):
                assert index in plan
            assert ("idx_mofo_relevance_changes_changed_at" in plan) is bool(relevant)
            assert not re.search("Seq Scan on (emails|mofo|contact_tombstones)", plan)
            assert max(map(int, re.findall(r"actual time=\S+ rows=(\d+)", plan))) <= 1000
