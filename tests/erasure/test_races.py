"""Erasures concurrent with other requests, each in a transaction of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.clients import registry
from ctms.clients.tokens import tokens
from ctms.database.engine import db
from ctms.database.pool import libpq_url
from ctms.suppression.fingerprints import Fingerprints
from ctms.testing.apps import Apps
from ctms.testing.plugins import points_of
from tests.contacts.factories import address, full, minimal
from tests.erasure.handlers import Handlers
from tests.http import Answer, ApiClient

CLIENT = "id_of_races"
AT_ONCE = 6
PATIENCE = 60


@pytest.fixture(scope="module")
def shared(apps: Apps) -> Iterator[Flask]:
    """Return an app with real transactions, whose rows are deleted afterwards."""
    app = apps.get(points_of(["default_waitlist", Handlers()]))
    with app.app_context(), db.session.begin():
        registry.create_client(CLIENT, "races@example.com", ["admin"])
    with pytest.MonkeyPatch.context() as patches:
        patches.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key for tests only"))
        yield app
    with app.app_context(), db.session.begin():
        registry.delete_client(CLIENT)
        tables = "emails, erasures, suppressions, outbox"
        db.session.connection().exec_driver_sql(f"TRUNCATE {tables} CASCADE")


@pytest.fixture
def call(shared: Flask) -> Callable[..., Answer]:
    """Send a request, from any thread."""
    with shared.app_context():
        token = tokens().issue(CLIENT)
    return lambda method, path, **kwargs: ApiClient(shared.test_client(), token).request(method, path, **kwargs)


@contextmanager
def transaction(url: str) -> Iterator[Any]:
    """Return a slow concurrent transaction."""
    with psycopg.connect(libpq_url(url)) as connection:
        yield connection


def wait_until_someone_waits(url: str) -> None:
    """Return when a connection to the test's database waits for a lock."""
    give_up = time.monotonic() + PATIENCE
    waiting = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"""
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        while connection.execute(waiting).fetchone() == (0,):
            assert time.monotonic() < give_up, "nobody waits"
            time.sleep(0.01)


def at_once(calls: list[Callable[[], Answer]]) -> list[Answer]:
    """Run the calls concurrently, and return their results in order."""
    ready = Barrier(len(calls))

    def one(call: Callable[[], Answer]) -> Answer:
        ready.wait(timeout=PATIENCE)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


def test_of_many_requests_with_one_key_one_is_done(call: Callable[..., Answer]) -> None:
    gone = address()
    call("POST", "/ctms", json=minimal(primary_email=gone))
    key = {"Idempotency-Key": str(uuid.uuid4())}

    answers = at_once([lambda: call("POST", "/erasures", json={"emails": [gone]}, headers=key)] * AT_ONCE)

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json["contacts"] == 1
    record = call("GET", answers[0].headers["Location"]).json
    assert [handler["pending"] for handler in record["handlers"]] == [1, 1]


@pytest.mark.parametrize("named", ["by its address", "by another identity"])
def test_an_address_written_during_its_suppression_is_not_stored(call: Callable[..., Answer], named: str) -> None:
    for _ in range(5):
        contact, moving = full(), minimal()
        gone = contact["email"]["primary_email"]
        path = call("POST", "/ctms", json=moving).headers["Location"]
        call("POST", "/ctms", json=contact)
        forget: dict[str, Any] = {"emails": [gone], "forget": True}
        if named != "by its address":
            forget = {"identities": [{"fxa_id": contact["fxa"]["fxa_id"]}], "forget": True}
        put = f"/ctms/{contact['email']['email_id']}"

        answers = at_once(
            [
                lambda forget=forget: call("POST", "/erasures", json=forget),  # type: ignore[misc]
                *[lambda gone=gone: call("POST", "/ctms", json=minimal(primary_email=gone))] * 2,
                lambda put=put, contact=contact: call("PUT", put, json=contact),  # type: ignore[misc]
                lambda path=path, gone=gone: call("PATCH", path, json={"email": {"primary_email": gone}}),  # type: ignore[misc]
            ]
        )

        assert answers[0].status_code == 202, answers[0].text
        assert {answer.status_code for answer in answers[1:]} <= {200, 201, 403, 404, 409}
        assert call("GET", "/ctms", query_string={"primary_email": gone}).json == []
        refused = call("POST", "/ctms", json=minimal(primary_email=gone))
        assert (refused.status_code, refused.json) == (403, {"detail": "Address is suppressed"})


def test_handlers_get_the_final_identities_of_the_contact(call: Callable[..., Answer], database_url: str) -> None:
    contact = full()
    call("POST", "/ctms", json=contact)
    email_id, gone = contact["email"]["email_id"], contact["email"]["primary_email"]
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("DELETE", f"/ctms/{gone}", {}),
        ("POST", "/erasures", {"json": {"identities": [{"email_id": email_id}]}}),
    ]
    for method, path, more in requests:
        call("POST", "/ctms", json=contact)
        last = uuid.uuid4().hex
        with transaction(database_url) as other, ThreadPoolExecutor(1) as threads:
            other.execute("UPDATE emails SET update_timestamp = now() WHERE email_id = %s", (email_id,))
            other.execute("UPDATE fxa SET fxa_id = %s WHERE email_id = %s", (last, email_id))
            answer = threads.submit(call, method, path, **more)
            wait_until_someone_waits(database_url)
            other.commit()
            assert answer.result(PATIENCE).status_code in {200, 202}

        with transaction(database_url) as look:
            told = look.execute(
                "SELECT DISTINCT identities ->> 'fxa_id' FROM erasure_tasks"
                " WHERE erasure_id = (SELECT id FROM erasures ORDER BY requested_at DESC LIMIT 1)"
            ).fetchall()
        assert told == [(last,)]


def test_a_contact_that_no_longer_matches_stays(call: Callable[..., Answer], database_url: str) -> None:
    contact = full()
    call("POST", "/ctms", json=contact)
    email_id, fxa_id = contact["email"]["email_id"], contact["fxa"]["fxa_id"]
    with transaction(database_url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("UPDATE emails SET update_timestamp = now() WHERE email_id = %s", (email_id,))
        other.execute("UPDATE fxa SET fxa_id = 'another' WHERE email_id = %s", (email_id,))
        answer = threads.submit(call, "POST", "/erasures", json={"identities": [{"fxa_id": fxa_id}]})
        wait_until_someone_waits(database_url)
        other.commit()
        assert answer.result(PATIENCE).json["unknown"] == 1

    assert call("GET", f"/ctms/{email_id}").status_code == 200


def test_concurrent_deletions_in_any_order_do_not_deadlock(call: Callable[..., Answer]) -> None:
    for _ in range(3):
        contacts = [full() for _ in range(30)]
        for contact in contacts:
            call("POST", "/ctms", json=contact)
        emails = [contact["email"]["primary_email"] for contact in contacts]
        identities = [{"fxa_id": contact["fxa"]["fxa_id"]} for contact in contacts]
        bodies: list[dict[str, Any]] = [
            {"emails": emails},
            {"emails": emails[::-1]},
            {"identities": identities[::-1], "forget": True},
            {"emails": emails[15:], "identities": identities[:15]},
            {"emails": emails[::2], "forget": True},
        ]

        answers = at_once([lambda body=body: call("POST", "/erasures", json=body) for body in bodies])  # type: ignore[misc]

        assert {answer.status_code for answer in answers} == {202}
        assert sum(answer.json["contacts"] for answer in answers) == len(contacts)
