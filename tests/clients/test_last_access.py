"""`last_access`: stored for every caller, at most once a minute, without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests
from flask import Flask
from sqlalchemy import text

from ctms.clients.tokens import tokens
from ctms.database.engine import db
from tests.clients.factories import create_client
from tests.http import ApiClient
from tests.serving import Served

ID = "id_reader"
SEARCH = "/ctms?primary_email=jane@example.com"

# A request that waits for the row's lock waits ten seconds, the lock timeout, before it gives up.
LONGEST_ANSWER_IN_SECONDS = 8


@pytest.fixture
def reader(app: Flask) -> ApiClient:
    """Return a client that may only read."""
    return ApiClient(app.test_client(), tokens().issue(create_client(ID, roles=["viewer"])))


def seen(when: str | None) -> None:
    """Set the reader's last access to an interval before now."""
    with db.session.begin():
        db.session.execute(
            text("UPDATE api_client SET last_access = now() - CAST(:when AS interval) WHERE client_id = :id"),
            {"when": when, "id": ID},
        )


def age() -> float | None:
    """Return the seconds since the reader's last access; `now()` is constant in a test's transaction."""
    with db.session.begin():
        found = db.session.scalar(
            text("SELECT CAST(extract(epoch FROM now() - last_access) AS float) FROM api_client WHERE client_id = :id"),
            {"id": ID},
        )
    return None if found is None else float(found)


def test_the_access_of_a_reader_is_stored(reader: ApiClient) -> None:
    assert age() is None

    assert reader.get(SEARCH).status_code == 200

    assert age() == 0


@pytest.mark.parametrize(
    ("before", "after"), [("59 seconds", 59), ("60 seconds", 60), ("61 seconds", 0), ("2 days", 0)]
)
def test_it_is_written_at_most_once_a_minute(reader: ApiClient, before: str, after: int) -> None:
    seen(before)

    assert reader.get(SEARCH).status_code == 200

    assert age() == after


def test_writes_update_the_last_access(app: Flask) -> None:
    editor = ApiClient(app.test_client(), tokens().issue(create_client(ID, roles=["editor"])))

    assert editor.post("/ctms", {"email": {"primary_email": "jane@example.com"}}).status_code == 201

    assert age() == 0


def test_it_does_not_look_like_a_change_of_the_client(reader: ApiClient) -> None:
    with db.session.begin():
        db.session.execute(text("UPDATE api_client SET update_timestamp = '2020-01-01T00:00:00Z'"))

    reader.get(SEARCH)

    with db.session.begin():
        assert db.session.scalar(text("SELECT max(extract(year FROM update_timestamp)) FROM api_client")) == 2020


def test_a_refused_caller_leaves_no_trace(app: Flask) -> None:
    disabled = ApiClient(app.test_client(), tokens().issue(create_client(ID, roles=["viewer"], enabled=False)))

    assert disabled.get(SEARCH).status_code == 400

    assert age() is None


@pytest.fixture
def beside(served: Served) -> Iterator[psycopg.Connection[Any]]:
    """Return a separate connection to the database of the running service."""
    with psycopg.connect(served.database_url(), autocommit=True) as connection:
        yield connection


def test_a_locked_row_delays_no_request(served: Served, beside: psycopg.Connection[Any]) -> None:
    session = served.session()
    unseen = "UPDATE api_client SET last_access = NULL WHERE client_id = %s"
    beside.execute(unseen, (served.client_id,))

    def read(_number: int) -> int:
        return session.get(f"{served.url}{SEARCH}", timeout=LONGEST_ANSWER_IN_SECONDS).status_code

    with beside.transaction(), ThreadPoolExecutor(8) as callers:
        beside.execute("SELECT FROM api_client WHERE client_id = %s FOR UPDATE", (served.client_id,))
        answers = list(callers.map(read, range(24)))
        written = session.post(
            f"{served.url}/ctms",
            json={"email": {"primary_email": "last-access@example.com"}},
            timeout=LONGEST_ANSWER_IN_SECONDS,
        )
        still_unseen = _last_access(beside, served)

    assert answers == [200] * 24
    assert written.status_code in {200, 201}
    assert still_unseen is None

    read(0)

    assert _last_access(beside, served) is not None


def test_many_at_once_write_it_once(served: Served, beside: psycopg.Connection[Any]) -> None:
    session = served.session()
    beside.execute("CREATE TABLE IF NOT EXISTS writes (at timestamptz)")
    beside.execute(
        "CREATE OR REPLACE FUNCTION count_write() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO writes VALUES (clock_timestamp()); RETURN NEW; END $$"
    )
    beside.execute("UPDATE api_client SET last_access = NULL WHERE client_id = %s", (served.client_id,))
    beside.execute("CREATE TRIGGER counted AFTER UPDATE ON api_client FOR EACH ROW EXECUTE FUNCTION count_write()")
    try:
        with ThreadPoolExecutor(8) as callers:
            answers = list(
                callers.map(lambda _: session.get(f"{served.url}{SEARCH}", timeout=30).status_code, range(80))
            )
        writes = beside.execute("SELECT count(*) FROM writes").fetchone()
    finally:
        beside.execute("DROP TRIGGER counted ON api_client")
        beside.execute("DROP FUNCTION count_write")
        beside.execute("DROP TABLE writes")

    assert answers == [200] * 80
    assert writes == (1,)


def test_two_clients_do_not_block_each_other(served: Served, beside: psycopg.Connection[Any]) -> None:
    made = served.flask("ctms", "clients", "create", "id_second", "second@example.com", "--role=viewer")
    secret = made.stdout.split()[-1]
    answer = requests.post(f"{served.url}/token", auth=("id_second", secret), timeout=30).json()
    headers = {"Authorization": f"Bearer {answer['access_token']}"}

    with beside.transaction():
        beside.execute("SELECT FROM api_client WHERE client_id = %s FOR UPDATE", (served.client_id,))
        answer = requests.get(f"{served.url}{SEARCH}", headers=headers, timeout=LONGEST_ANSWER_IN_SECONDS)

    row = beside.execute("SELECT last_access FROM api_client WHERE client_id = 'id_second'").fetchone()
    served.flask("ctms", "clients", "delete", "id_second", "--yes")
    assert answer.status_code == 200
    assert row is not None
    assert row[0] is not None


def _last_access(connection: psycopg.Connection[Any], served: Served) -> Any:
    row = connection.execute("SELECT last_access FROM api_client WHERE client_id = %s", (served.client_id,)).fetchone()
    assert row is not None
    return row[0]
