"""Access requests concurrent with erasures, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from flask import Flask

from ctms.database.pool import libpq_url
from ctms.testing.apps import Apps
from ctms.testing.plugins import points_of
from tests.contacts.factories import full
from tests.http import Answer
from tests.races import clients, committing_app, transaction
from tests.sessions import wait_until_someone_waits
from tests.sync.receiving import RECEIVING


@pytest.fixture(scope="module")
def shared(apps: Apps) -> Iterator[Flask]:
    with committing_app(apps, points_of(["default_waitlist", RECEIVING])) as app:
        yield app


@pytest.fixture
def call(shared: Flask) -> Callable[..., Answer]:
    """Send a request, from any thread."""
    client = clients(shared)
    return lambda method, path, **kwargs: client().request(method, path, **kwargs)


def stored(url: str, mark: str) -> int:
    """Return the number of rows about a contact in all reports."""
    with psycopg.connect(libpq_url(url)) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM access_request_contacts c WHERE strpos(c::text, %(mark)s) > 0)"
            " + (SELECT count(*) FROM access_request_copies c WHERE strpos(c::text, %(mark)s) > 0)",
            {"mark": mark},
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_request_waits_for_an_erasure(call: Callable[..., Answer], database_url: str) -> None:
    contact = full()
    given, email_id = contact["email"]["primary_email"], contact["email"]["email_id"]
    assert call("POST", "/ctms", json=contact).status_code == 201

    with ThreadPoolExecutor() as threads, transaction(database_url) as erasure:
        erasure.execute("DELETE FROM emails WHERE email_id = %s", (email_id,))
        asked = threads.submit(lambda: call("POST", "/access-requests", json={"address": given}))
        wait_until_someone_waits(database_url)
        erasure.commit()
        answer = asked.result()

    assert answer.status_code == 202
    assert (answer.json["contacts"], answer.json["report"]["contacts"]) == (0, [])
    assert stored(database_url, email_id) == 0


def test_an_erasure_waits_for_a_request_and_deletes_its_report(call: Callable[..., Answer], database_url: str) -> None:
    contact = full()
    given, email_id = contact["email"]["primary_email"], contact["email"]["email_id"]
    assert call("POST", "/ctms", json=contact).status_code == 201
    path = call("POST", "/access-requests", json={"address": given}).headers["Location"]
    assert stored(database_url, email_id) == 4  # the contact, and its copies in three backends

    with ThreadPoolExecutor() as threads, transaction(database_url) as other:
        # As a request does that has locked the contact and is not committed.
        other.execute("SELECT FROM emails WHERE email_id = %s FOR KEY SHARE", (email_id,))
        erased = threads.submit(lambda: call("DELETE", f"/ctms/{given}"))
        wait_until_someone_waits(database_url)
        (request_id,) = other.execute(
            "INSERT INTO access_requests VALUES"
            " (gen_random_uuid(), now(), 'client:other', 'api', 1, 0, 0, now() + interval '1 day', '{}') RETURNING id"
        ).fetchone()
        inserted = other.execute("INSERT INTO access_request_contacts VALUES (%s, %s, 1, '{}')", (request_id, email_id))
        assert inserted.rowcount == 1
        other.commit()
        assert erased.result().status_code == 200

    assert stored(database_url, email_id) == 0
    assert call("GET", path).json["report"]["contacts"] == []


def test_a_change_does_not_wait_for_a_request(call: Callable[..., Answer], database_url: str) -> None:
    contact = full()
    email_id = contact["email"]["email_id"]
    assert call("POST", "/ctms", json=contact).status_code == 201

    with transaction(database_url) as other:
        other.execute("SELECT FROM emails WHERE email_id = %s FOR KEY SHARE", (email_id,))

        changed = call("PATCH", f"/ctms/{email_id}", json={"email": {"first_name": "Joan"}})

    assert changed.status_code == 200
