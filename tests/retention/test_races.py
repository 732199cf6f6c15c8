"""Contacts that others change during a run, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from ctms.addresses import comparison_key
from ctms.contacts import commands
from ctms.database import pool
from ctms.database.engine import database_url
from ctms.database.pool import Connection, libpq_url
from ctms.retention.policy import RetentionPolicy
from ctms.retention.run import RunResult
from tests.retention.rules import insert, policy, run

PATIENCE = 60


@pytest.fixture
def shared(migrated_app: Flask) -> Iterator[Flask]:
    """Return an app with real transactions, whose rows are deleted afterwards."""
    with migrated_app.app_context():
        yield migrated_app
        with pool.acquire() as connection:
            connection.execute(
                "TRUNCATE emails, erasures, retention_runs, anonymous_counts, contact_tombstones CASCADE"
            )
            connection.execute("TRUNCATE outbox, subscription_events")


@contextmanager
def another(app: Flask) -> Iterator[Connection]:
    """Return the connection of another client, which commits at the end of the block."""
    with psycopg.connect(libpq_url(database_url(app)())) as connection:
        yield connection


def exist(ids: list[UUID]) -> set[UUID]:
    """Return which contacts exist."""
    with pool.acquire() as connection:
        rows = connection.execute("SELECT email_id FROM emails WHERE email_id = ANY(%s)", (ids,)).fetchall()
    return {email_id for (email_id,) in rows}


def run_with_change_in_between(
    app: Flask, given: RetentionPolicy, change: Callable[[Connection], Any], *, commits: bool = True
) -> RunResult:
    """Apply the rules; another client changes contacts after they were found, right before they are erased."""
    windows = []
    with another(app) as other:

        def on_window() -> None:
            windows.append(True)
            if len(windows) == 4:  # two of the count, one that finds, and this after the first batch of one contact
                change(other)
                if commits:
                    other.commit()

        with pool.acquire() as connection:
            result = run(given, connection=connection, batch_size=1, on_window=on_window)
        assert len(windows) >= 4
    return result


CHANGES: dict[str, str] = {
    "it no longer matches": "UPDATE emails SET mailing_country = 'ca', update_timestamp = clock_timestamp()",
    "it has changed and still matches": "UPDATE emails SET first_name = 'x', update_timestamp = clock_timestamp()",
    "its time did not move": "UPDATE emails SET mailing_country = NULL",
}


@pytest.mark.parametrize("sql", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("commits", [True, False], ids=["before it is locked", "after it is locked"])
def test_a_contact_that_changes_in_between_survives(shared: Flask, sql: str, commits: bool) -> None:
    with pool.acquire() as connection:
        gone, changed, last = ids = insert(connection, 3)

    result = run_with_change_in_between(
        shared, policy(), lambda other: other.execute(f"{sql} WHERE email_id = %s", (changed,)), commits=commits
    )

    assert exist(ids) == {changed}
    assert result.outcomes == {("old", "erased"): 2, ("old", "changed"): 1}
    assert {gone, last}.isdisjoint(exist(ids))


def test_a_contact_that_subscribes_in_between_survives(shared: Flask) -> None:
    """The change is in another table, by the writer of requests."""
    with pool.acquire() as connection:
        _, changed, _ = ids = insert(connection, 3)

    def subscribe(other: Connection) -> None:
        with other.pipeline():
            commands.update(other, changed, {"newsletters": [{"name": "news", "subscribed": True}]})

    run_with_change_in_between(shared, policy(), subscribe)

    assert exist(ids) == {changed}


def test_a_hold_wins_over_a_change_in_between(shared: Flask) -> None:
    """A contact gets a held address after it was found, even if its time does not show that it has changed."""
    with pool.acquire() as connection:
        _, changed, _ = ids = insert(connection, 3)

    result = run_with_change_in_between(
        shared,
        policy(keys=[comparison_key("held@example.com")]),
        lambda other: other.execute(
            "UPDATE emails SET primary_email = 'Held@Example.com' WHERE email_id = %s", (changed,)
        ),
    )

    assert exist(ids) == {changed}
    assert result.outcomes[("old", "held")] == 1


def test_a_contact_that_is_deleted_in_between_is_not_counted(shared: Flask) -> None:
    with pool.acquire() as connection:
        _, deleted, _ = ids = insert(connection, 3)

    result = run_with_change_in_between(
        shared, policy(), lambda other: other.execute("DELETE FROM emails WHERE email_id = %s", (deleted,))
    )

    assert exist(ids) == set()
    assert result.outcomes == {("old", "erased"): 2, ("old", "changed"): 1}
    with pool.acquire() as connection:
        assert connection.execute("SELECT sum(contacts)::int FROM erasures").fetchone() == (2,)


def test_two_runs_at_once_erase_each_contact_once(shared: Flask) -> None:
    with pool.acquire() as connection:
        ids = insert(connection, 60)
    ready = Barrier(2)

    def one(_number: int) -> RunResult:
        with shared.app_context(), pool.acquire() as connection:
            waited: list[int] = []

            def on_window() -> None:
                if not waited:
                    waited.append(ready.wait(timeout=PATIENCE))

            return run(policy(), connection=connection, batch_size=3, on_window=on_window)

    with ThreadPoolExecutor(2) as threads:
        results = list(threads.map(one, range(2)))

    # A contact that both have locked at once is left to the next run only if neither got it: none is.
    assert exist(ids) == set()
    assert sum(result.numbers["erased"] for result in results) == 60
    with pool.acquire() as connection:
        assert connection.execute("SELECT sum(contacts)::int FROM erasures").fetchone() == (60,)
