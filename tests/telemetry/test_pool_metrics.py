"""Metrics of database connections: in use, waiting, timed out, and database time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from flask import Flask
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.app import create_app
from ctms.database import pool
from ctms.database.engine import release_database
from ctms.settings import Settings
from tests.telemetry.scraped import total, values


@pytest.fixture
def small(settings: Settings) -> Iterator[Flask]:
    """An app with at most two connections."""
    app = create_app(replace(settings, db_pool_size=1, db_max_overflow=1, db_pool_timeout=5), [])
    yield app
    release_database(app)


def scrape(app: Flask) -> str:
    return app.test_client().get("/metrics").text


def connections(app: Flask) -> dict[tuple[str, ...], float]:
    return values(scrape(app), "ctms_database_connections")


def test_connections_in_use_and_waiting(small: Flask) -> None:
    assert connections(small) == {("in_use",): 0, ("waiting",): 0}

    def time_out() -> None:
        with small.app_context(), pytest.raises(PoolTimeout), pool.acquire():
            pass

    with small.app_context(), pool.acquire():
        assert connections(small) == {("in_use",): 1, ("waiting",): 0}
        with pool.acquire():
            waiting = threading.Thread(target=time_out)
            waiting.start()
            give_up = time.monotonic() + 200
            while connections(small) != {("in_use",): 2, ("waiting",): 1}:
                assert time.monotonic() < give_up
            waiting.join()
    text = scrape(small)
    assert values(text, "ctms_database_connections") == {("in_use",): 0, ("waiting",): 0}
    assert total(text, "ctms_database_connection_timeouts_total") == 1
    assert total(text, "ctms_database_connections_limit") == 2


def test_a_broken_connection_is_returned_to_the_pool(small: Flask) -> None:
    with small.app_context(), pytest.raises(psycopg.errors.AdminShutdown), pool.reading() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    assert connections(small) == {("in_use",): 0, ("waiting",): 0}


def test_database_time_excludes_python(small: Flask) -> None:
    with small.app_context():
        with pool.reading() as connection:
            began = time.perf_counter()
            connection.execute("SELECT pg_sleep(0.1)")
            longest = time.perf_counter() - began
            time.sleep(0.2)  # time in Python does not count
        with pool.writing() as connection:
            first = connection.execute("SELECT pg_sleep(0.1)")
            connection.execute("SELECT pg_sleep(0.1)")
            first.fetchone()
        with pytest.raises(psycopg.errors.DivisionByZero), pool.writing() as connection:
            connection.execute("SELECT 1/0")

    text = scrape(small)
    assert total(text, "ctms_database_seconds_count", kind="read") == 1
    assert total(text, "ctms_database_seconds_count", kind="write") == 2
    assert 0.1 <= total(text, "ctms_database_seconds_sum", kind="read") <= longest
    assert total(text, "ctms_database_seconds_sum", kind="write") >= 0.2
