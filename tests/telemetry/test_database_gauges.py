"""Gauges read from the database: the planner's estimate of the contacts, and the open erasures."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.app import create_app
from ctms.contacts import queries
from ctms.database import engine, migrations
from ctms.database.pool import libpq_url
from ctms.settings import Settings
from ctms.telemetry import database_gauges
from ctms.telemetry.database_gauges import DatabaseCounts, DatabaseGauges
from tests.conftest import empty_database
from tests.counted import count_connections


@pytest.fixture(scope="module")
def counted(settings: Settings, postgres: str, worker_id: str) -> Iterator[Flask]:
    """An app on a database of its own, with its own statistics."""
    url = empty_database(postgres, f"gauges_{worker_id}")
    app = create_app(replace(settings, db_url=url), [])
    with app.app_context():
        migrations.upgrade()
    yield app
    engine.release_database(app)


@pytest.fixture
def execute(counted: Flask) -> Iterator[Callable[..., Any]]:
    """Executes statements in that database."""
    with psycopg.connect(libpq_url(counted.extensions["ctms.settings"].db_url), autocommit=True) as connection:
        yield connection.execute


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with each query."""
    return count_connections(monkeypatch, database_gauges, "quick_connection")


def read(app: Flask) -> DatabaseCounts:
    with app.app_context():
        found = DatabaseGauges().read()
    assert found
    return found


def test_contacts_are_estimated(counted: Flask, execute: Callable[..., Any]) -> None:
    assert read(counted).contacts == 0

    # Never analysed: the statistics of inserts.
    execute("ALTER TABLE emails SET (autovacuum_enabled = false)")
    insert = (
        "INSERT INTO emails (email_id, primary_email)"
        " SELECT gen_random_uuid(), 'a' || n || '@example.com' FROM generate_series(%s::int, %s::int) n"
    )
    execute(insert, (1, 40))
    execute("SELECT pg_stat_force_next_flush()")
    execute("SELECT 1")
    assert execute("SELECT relpages FROM pg_class WHERE oid = 'emails'::regclass").fetchone() == (0,)
    assert read(counted).contacts == 40

    execute(insert, (41, 2000))
    execute("ANALYZE emails")
    assert read(counted).contacts == 2000

    # Growth since then is estimated by the pages.
    execute(insert, (2001, 4000))
    assert read(counted).contacts == pytest.approx(4000, rel=0.1)


def test_the_table_of_contacts_is_not_read(execute: Callable[..., Any]) -> None:
    plan = execute(f"EXPLAIN {queries._ESTIMATE}").fetchall()

    assert "emails" not in " ".join(line for (line,) in plan).replace("'emails'", "")


def test_erasures_are_open_until_handlers_and_backends_are_done(counted: Flask, execute: Callable[..., Any]) -> None:
    assert read(counted)[1:] == (0, 0)
    for age, kind, pending, parked in (
        (6, "handler", 0, 0),
        (5, "backend", 0, 0),
        (4, "backend", 1, 0),
        (3, "backend", 0, 1),
        (2, "handler", 1, 0),
        (1, "handler", 0, 1),
    ):
        erasure = uuid.uuid4()
        execute(
            "INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown)"
            " VALUES (%s, now() - %s * interval '1 hour', 'x', 'api', false, 1, 0)",
            (erasure, age),
        )
        for name in ("a", "b"):
            execute(
                f"INSERT INTO erasure_{kind}s (erasure_id, {kind}, pending, done, parked, started_at, changed_at"
                f"{', verified' if kind == 'handler' else ''}) VALUES (%s, %s, %s, 0, %s, now(), now()"
                f"{', 0' if kind == 'handler' else ''})",
                (erasure, name, pending, parked),
            )

    found = read(counted)

    assert found.erasures_open == 4
    assert found.erasures_oldest == pytest.approx(4 * 3600, abs=60)


def test_values_are_cached(counted: Flask, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    gauges = DatabaseGauges()
    with counted.app_context():
        assert gauges.read() == gauges.read()
        assert len(asked) == 1

        monkeypatch.setattr(database_gauges, "CACHE_SECONDS", 0)
        gauges.read()
        assert len(asked) == 2


def test_an_unavailable_database_is_not_queried_at_every_scrape(settings: Settings, asked: list[str]) -> None:
    app = create_app(replace(settings, db_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing"), [])
    with app.app_context():
        gauges = DatabaseGauges()
        assert [gauges.read() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
