"""The connection pool of requests: a server that closes connections at any moment causes a 503, never a 500."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.clients.tokens import tokens
from ctms.contacts import removal
from ctms.database import pool
from tests.http import Answer, assert_error


@pytest.fixture
def headers(migrated_app: Flask) -> dict[str, str]:
    """Return a valid token of a client that the database does not have; the failures come before that check."""
    with migrated_app.app_context():
        return {"Authorization": f"Bearer {tokens().issue('id_nobody')}"}


def end(connection: psycopg.Connection[Any], connect: Callable[..., psycopg.Connection[Any]], url: str) -> None:
    """End a connection as an administrator does, and wait until its process is gone."""
    with connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    time.sleep(0.05)


def test_connections_that_end_as_soon_as_they_are_open(
    migrated_app: Flask, database_url: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = pool.connect_with_retry

    def doomed(*args: Any, **kwargs: Any) -> psycopg.Connection[Any]:
        connection = real(*args, **kwargs)
        end(connection, real, database_url)
        return connection

    migrated_app.extensions["ctms.pool"].dispose()
    with monkeypatch.context() as patched:
        patched.setattr(pool, "connect_with_retry", doomed)
        answer = Answer(migrated_app.test_client().get("/ctms?sfdc_id=x", headers=headers))

    assert_error(answer, 503, "the database is not available")
    assert migrated_app.test_client().get("/ctms?sfdc_id=x", headers=headers).status_code == 401


@pytest.mark.parametrize("first", [True, False])
def test_a_connection_that_ends_in_a_write(
    migrated_app: Flask, database_url: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Before anything was answered, or after."""

    def lock_address(connection: psycopg.Connection[Any], _address: str) -> None:
        if not first:
            connection.execute("SELECT 1").fetchone()
        end(connection, pool.connect_with_retry, database_url)
        connection.execute("SELECT 2").fetchone()

    with monkeypatch.context() as patched:
        patched.setattr(removal, "lock_address", lock_address)
        answer = Answer(migrated_app.test_client().delete("/ctms/x", headers=headers))

    assert answer.status_code in ({503} if first else {503, 401}), answer.text
    assert migrated_app.test_client().delete("/ctms/x", headers=headers).status_code == 401


def test_a_statement_that_times_out(
    migrated_app: Flask, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_address(connection: psycopg.Connection[Any], _address: str) -> None:
        connection.execute("SET LOCAL statement_timeout = 50")
        connection.execute("SELECT pg_sleep(5)").fetchone()

    with monkeypatch.context() as patched:
        patched.setattr(removal, "lock_address", lock_address)
        answer = Answer(migrated_app.test_client().delete("/ctms/x", headers=headers))

    assert answer.status_code in {401, 503}
    assert migrated_app.test_client().delete("/ctms/x", headers=headers).status_code == 401
