"""Erasures concurrent with other requests, each in a transaction of its own."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask

from ctms.outbox import deletions
from ctms.outbox.deletions import Delay, Deletion
from ctms.suppression.check import block_writers
from ctms.suppression.fingerprints import fingerprints
from ctms.testing.apps import Apps
from ctms.testing.plugins import points_of
from tests.contacts.factories import address, full, minimal
from tests.erasure.handlers import Handlers
from tests.http import Answer
from tests.races import PATIENCE, at_once, clients, committing_app, transaction
from tests.sessions import wait_until_someone_waits

AT_ONCE = 6


@pytest.fixture(scope="module")
def shared(apps: Apps) -> Iterator[Flask]:
    with committing_app(apps, points_of(["default_waitlist", Handlers()])) as app:
        yield app


@pytest.fixture
def call(shared: Flask) -> Callable[..., Answer]:
    """Send a request, from any thread."""
    client = clients(shared)
    return lambda method, path, **kwargs: client().request(method, path, **kwargs)


def create_in_order(call: Callable[..., Answer], *emails: dict[str, str]) -> list[str]:
    """Create contacts whose ids are in this order, in which their rows are locked; return the ids."""
    ids = sorted(str(uuid.uuid4()) for _ in emails)
    for email_id, email in zip(ids, emails, strict=True):
        assert call("POST", "/ctms", json=minimal(email_id=email_id, **email)).status_code == 201
    return ids


@contextmanager
def locked(url: str, email_id: str) -> Iterator[Any]:
    """Return a concurrent transaction that has locked the contact."""
    with transaction(url) as other:
        other.execute("SELECT FROM emails WHERE email_id = %s FOR UPDATE", (email_id,))
        yield other


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


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_conditional_write_locks_its_address_before_its_contact(
    shared: Flask, call: Callable[..., Answer], database_url: str, method: str
) -> None:
    """In the other order it would deadlock with an erasure that forgets the address."""
    contact, new = minimal(), address()
    created = call("POST", "/ctms", json=contact)
    email_id = created.json["email"]["email_id"]
    body = {"email": {"primary_email": new, **({"email_id": email_id} if method == "PUT" else {})}}
    headers = {"If-Match": created.headers["ETag"]}
    with transaction(database_url) as other, ThreadPoolExecutor(1) as threads:
        with shared.app_context():
            block_writers(other, fingerprints().all_of(new))
        written = threads.submit(call, method, f"/ctms/{email_id}", json=body, headers=headers)
        wait_until_someone_waits(database_url)
        other.execute("SELECT FROM emails WHERE email_id = %s FOR UPDATE NOWAIT", (email_id,))
        other.rollback()

        assert written.result(PATIENCE).json["email"]["primary_email"] == new


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


def test_a_person_is_found_while_merges_follow_each_other(call: Callable[..., Answer], database_url: str) -> None:
    lost = address()
    first, second, third = create_in_order(call, {"primary_email": lost}, {}, {})
    body = {"emails": [lost], "include_fxa": True, "forget": True}
    with locked(database_url, second) as one, locked(database_url, third) as other, ThreadPoolExecutor(3) as threads:
        merges = []
        for source, target in ((first, second), (second, third)):
            merges.append(threads.submit(call, "POST", f"/ctms/{target}/merge", json={"from": source}))
            wait_until_someone_waits(database_url, len(merges))
        erased = threads.submit(call, "POST", "/erasures", json=body)
        wait_until_someone_waits(database_url, 3)
        one.rollback()
        wait_until_someone_waits(database_url, behind=other.info.backend_pid)  # the second merge
        wait_until_someone_waits(database_url, 2)
        other.rollback()

        assert [merge.result(PATIENCE).status_code for merge in merges] == [200, 200]
        assert erased.result(PATIENCE).json["contacts"] == 1

    assert call("GET", f"/ctms/{third}").status_code == 404


def test_an_identity_is_found_that_a_merge_moves_meanwhile(call: Callable[..., Answer], database_url: str) -> None:
    fxa_id = uuid.uuid4().hex
    source, target = create_in_order(call, {}, {})
    call("PATCH", f"/ctms/{source}", json={"fxa": {"fxa_id": fxa_id}})
    with locked(database_url, target) as other, ThreadPoolExecutor(2) as threads:
        merge = threads.submit(call, "POST", f"/ctms/{target}/merge", json={"from": source})
        wait_until_someone_waits(database_url)
        erased = threads.submit(call, "POST", "/erasures", json={"identities": [{"fxa_id": fxa_id}]})
        wait_until_someone_waits(database_url, 2)
        other.rollback()

        assert merge.result(PATIENCE).status_code == 200
        assert erased.result(PATIENCE).json["contacts"] == 1


def test_the_404_of_a_deletion_counts_what_a_merge_moves_meanwhile(
    call: Callable[..., Answer], database_url: str
) -> None:
    lost = address()
    source, target = create_in_order(call, {"primary_email": lost}, {})
    with locked(database_url, target) as other, ThreadPoolExecutor(2) as threads:
        merge = threads.submit(call, "POST", f"/ctms/{target}/merge", json={"from": source})
        wait_until_someone_waits(database_url)
        gone = threads.submit(call, "DELETE", f"/ctms/{lost}")
        wait_until_someone_waits(database_url, 2)
        other.rollback()

        assert merge.result(PATIENCE).status_code == 200
        assert gone.result(PATIENCE).json == {"detail": f"email {lost} not found!", "also_known_in": 1}


@pytest.mark.parametrize("which", ["merge", "worker"])
def test_pending_deletions_are_locked_in_the_order_of_their_ids(shared: Flask, database_url: str, which: str) -> None:
    """In other orders, a merge and a worker would deadlock."""
    source, target = uuid.uuid4(), uuid.uuid4()
    with transaction(database_url) as other:
        rows = other.execute(
            "INSERT INTO erasure_deletions (backend, email_id, parked)"
            " SELECT 'mirror', gen_random_uuid(), false FROM generate_series(1, 2) RETURNING id"
        ).fetchall()
        first, last = sorted(number for (number,) in rows)
        for number in (last, first):  # a scan finds the new versions of the rows in this order
            other.execute("UPDATE erasure_deletions SET merged_into = %s WHERE id = %s", (source, number))
        other.commit()

    def change() -> None:
        with shared.app_context(), transaction(database_url) as connection:
            if which == "merge":
                deletions.add_merged(connection, [], source, target)
            else:
                done, late = Deletion(last, None), Deletion(first, None)
                deletions.settle(connection, "mirror", [done], {late: Delay(parked=False, reason=None)})

    with transaction(database_url) as other, ThreadPoolExecutor(1) as threads:
        other.execute("SELECT FROM erasure_deletions WHERE id = %s FOR UPDATE", (first,))
        changing = threads.submit(change)
        wait_until_someone_waits(database_url)
        other.execute("SELECT FROM erasure_deletions WHERE id = %s FOR UPDATE NOWAIT", (last,))
        other.execute("DELETE FROM erasure_deletions WHERE merged_into = %s", (source,))
        other.commit()
        changing.result(PATIENCE)
