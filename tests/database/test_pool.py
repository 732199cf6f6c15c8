"""The connection pool of requests: a server that closes connections at any moment causes a 503, never a 500."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask import Flask
from psycopg import errors
from psycopg.sql import SQL, Identifier

from ctms.clients.tokens import tokens
from ctms.contacts import removal
from ctms.database import pool
from ctms.database_urls import parse_primary_url
from ctms.settings import Settings
from tests.http import Answer, assert_error


@pytest.fixture
def headers(migrated_app: Flask) -> dict[str, str]:
    """Return a valid token of a client that the database does not have; the failures come before that check."""
    with migrated_app.app_context():
        return {"Authorization": f"Bearer {tokens().issue('id_nobody')}"}


def end(connection: psycopg.Connection[Any], connect: Callable[..., psycopg.Connection[Any]], url: str) -> None:
    """End a connection as an administrator does, and wait until its process is gone."""
    with connect(url, autocommit=True) as other:
        ended = other.execute("SELECT pg_terminate_backend(%s, 60_000)", (connection.info.backend_pid,)).fetchone()
    assert ended == (True,)
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


def test_a_write_on_a_server_that_is_read_only(
    migrated_app: Flask, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_address(connection: psycopg.Connection[Any], _address: str) -> None:
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("DELETE FROM emails WHERE false")

    monkeypatch.setattr(removal, "lock_address", lock_address)
    answer = Answer(migrated_app.test_client().delete("/ctms/x", headers=headers))

    assert_error(answer, 503, "the database is not available")


def test_connections_to_a_demoted_server_are_replaced(migrated_app: Flask) -> None:
    """As after a switch-over behind one address: the first write fails, and replaces all connections."""
    with migrated_app.app_context():
        with pool.acquire() as first, pool.acquire() as second:
            old = {first, second}
            for connection in old:
                connection.execute("SET default_transaction_read_only = on")

        with pytest.raises(pool.ReadOnlyServer), pool.writing() as connection:
            connection.execute("DELETE FROM emails WHERE false")

        with pool.writing() as first, pool.writing() as second:
            for connection in (first, second):
                connection.execute("DELETE FROM emails WHERE false")
            assert not old & {first, second}


def test_a_broken_connection_condemns_the_older_ones(migrated_app: Flask, database_url: str) -> None:
    """The machine of the server may be gone: each of the others would cost another request its timeout."""
    with migrated_app.app_context():
        with pool.acquire() as first, pool.acquire() as second:
            old = {first, second}
        with pool.reading() as broken:
            end(broken, pool.connect_with_retry, database_url)
            with pytest.raises(psycopg.OperationalError):
                broken.execute("SELECT 1")

        with pool.reading() as first, pool.reading() as second:
            assert broken in old
            assert not old & {first, second}


@pytest.mark.parametrize("hosts", ["a.example.com", "a.example.com,b.example.com"])
def test_a_machine_that_is_gone_is_detected_sooner_if_there_is_another(hosts: str, settings: Settings) -> None:
    url = parse_primary_url(f"postgresql://ctms@{hosts}/ctms")
    arguments = pool.connect_arguments(replace(settings, db_url=url))

    assert (arguments["tcp_user_timeout"] < 10_000) is ("," in hosts)
    assert (arguments["connect_timeout"] < 5) is ("," in hosts)


def test_a_write_waits_for_the_first_result_and_for_the_end_only(migrated_app: Flask, tmp_path: Path) -> None:
    sent = tmp_path / "messages"
    with migrated_app.app_context(), sent.open("w") as file:
        with pool.writing() as connection:
            connection.pgconn.trace(file.fileno())
            connection.execute("SELECT 1")
            assert connection.execute("SELECT 2").fetchone() == (2,)
            connection.execute("SELECT 3")
        connection.pgconn.untrace()

    messages = [line.split("\t")[3] for line in sent.read_text().splitlines() if line.split("\t")[1] == "F"]
    assert messages.count("Execute") == 5, "with BEGIN and COMMIT"
    assert messages.count("Sync") == 1


class _FailureError(Exception):
    pass


def fail(connection: pool.Connection, moment: str) -> None:
    match moment:
        case "fetched":
            connection.execute("SELECT 1 / 0").fetchone()
        case "not fetched":
            connection.execute("SELECT 1 / 0")
        case "not fetched, and late":
            connection.execute("SELECT 1 / length(pg_sleep(0.2)::text)")
        case "before the first result":
            raise _FailureError
        case "after the results":
            connection.execute("SELECT 1").fetchone()
            raise _FailureError


@pytest.mark.parametrize(
    "moment", ["fetched", "not fetched", "not fetched, and late", "before the first result", "after the results"]
)
def test_a_write_that_fails_is_rolled_back(migrated_app: Flask, moment: str) -> None:
    name = f"pool_{uuid4().hex}"

    def write() -> None:
        with pool.writing() as connection:
            used.append(connection)
            connection.execute(SQL("CREATE TABLE {} ()").format(Identifier(name)))
            fail(connection, moment)

    used: list[pool.Connection] = []
    with migrated_app.app_context():
        with pytest.raises((_FailureError, errors.DivisionByZero)):
            write()
        with pool.writing() as connection:
            assert connection.execute("SELECT to_regclass(%s)", (name,)).fetchone() == (None,)
            # A transaction whose last statement fails unnoticed is ended by closing the connection.
            assert used == [connection] or moment.startswith("not fetched")


@pytest.mark.parametrize("arrived", [True, False])
def test_a_savepoint_in_a_write(migrated_app: Flask, arrived: bool) -> None:
    """Whether the results of the earlier statements have arrived or not."""
    with migrated_app.app_context(), pool.writing() as connection:
        connection.execute("CREATE TEMPORARY TABLE points (number int) ON COMMIT DROP")
        inserted = connection.execute("INSERT INTO points VALUES (1) RETURNING number")
        if arrived:
            inserted.fetchone()
        with connection.transaction(force_rollback=True):
            connection.execute("INSERT INTO points VALUES (2)")
        with connection.transaction():
            connection.execute("INSERT INTO points VALUES (3)")

        assert connection.execute("SELECT number FROM points ORDER BY number").fetchall() == [(1,), (3,)]
