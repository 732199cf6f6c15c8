"""What is counted in the database: the planner's estimate of the contacts, and the erasures that are open."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms import database
from ctms.app import create_app
from ctms.pool import libpq_url
from ctms.settings import Settings
from ctms.telemetry import census
from ctms.telemetry.census import Census, Counts
from ctms.telemetry.slots import Slots
from tests.conftest import empty_database


@pytest.fixture(scope="module")
def counted(settings: Settings, postgres: str, worker_id: str) -> Iterator[Flask]:
    """An app on a database of its own, whose statistics are nobody else's."""
    url = empty_database(postgres, f"census_{worker_id}")
    app = create_app(replace(settings, db_url=url), [])
    with app.app_context():
        database.upgrade()
    yield app
    database.release_database(app)


@pytest.fixture
def execute(counted: Flask) -> Iterator[Callable[..., Any]]:
    """Runs statements in that database."""
    with psycopg.connect(libpq_url(counted.extensions["ctms.settings"].db_url), autocommit=True) as connection:
        yield connection.execute


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows with each time that the database is asked."""
    times: list[str] = []
    real = database.quick_connection

    @contextmanager
    def counting() -> Iterator[Any]:
        times.append("")
        with real() as connection:
            yield connection

    monkeypatch.setattr(census, "quick_connection", counting)
    return times


def take(app: Flask) -> Counts:
    with app.app_context():
        found = Census(None).take()
    assert found
    return found


def test_contacts_are_estimated(counted: Flask, execute: Callable[..., Any]) -> None:
    assert take(counted).contacts == 0

    # Never analysed: what the statistics say of inserts.
    execute("ALTER TABLE emails SET (autovacuum_enabled = false)")
    insert = (
        "INSERT INTO emails (email_id, primary_email)"
        " SELECT gen_random_uuid(), 'a' || n || '@example.com' FROM generate_series(%s::int, %s::int) n"
    )
    execute(insert, (1, 40))
    execute("SELECT pg_stat_force_next_flush()")
    execute("SELECT 1")
    assert execute("SELECT reltuples FROM pg_class WHERE oid = 'emails'::regclass").fetchone() == (-1,)
    assert take(counted).contacts == 40

    execute(insert, (41, 2000))
    execute("ANALYZE emails")
    assert take(counted).contacts == 2000

    # What has grown since is estimated by the pages.
    execute(insert, (2001, 4000))
    assert take(counted).contacts == pytest.approx(4000, rel=0.1)


def test_no_table_of_contacts_is_read(execute: Callable[..., Any]) -> None:
    plan = execute(f"EXPLAIN {census._QUESTION}").fetchall()

    assert "emails" not in " ".join(line for (line,) in plan).replace("'emails'", "")


def test_erasures_are_open_until_handlers_and_backends_are_done(counted: Flask, execute: Callable[..., Any]) -> None:
    assert take(counted)[1:] == (0, 0)
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

    found = take(counted)

    assert found.erasures_open == 4
    assert found.erasures_oldest == pytest.approx(4 * 3600, abs=60)


def test_an_answer_serves_all_processes_for_a_while(
    counted: Flask, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counted.app_context():
        first, second = Census(Slots(tmp_path)), Census(Slots(tmp_path))  # as two processes have it
        found = first.take()
        assert [second.take(), first.take()] == [found, found]
        assert len(asked) == 1

        monkeypatch.setattr(census, "FRESH_FOR_IN_SECONDS", 0)
        second.take()
        assert len(asked) == 2


def test_an_answer_that_was_cut_off_is_none(counted: Flask, tmp_path: Path) -> None:
    with counted.app_context():
        (tmp_path / "census.json").write_text("[17.0, [1.0,")
        assert Census(Slots(tmp_path)).take() is not None


@pytest.mark.parametrize("shared", [True, False])
def test_a_database_that_is_away_is_not_asked_at_every_scrape(
    settings: Settings, asked: list[str], tmp_path: Path, shared: bool
) -> None:
    app = create_app(replace(settings, db_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing"), [])
    with app.app_context():
        one = Census(Slots(tmp_path) if shared else None)
        assert [one.take() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
