"""`Idempotency-Key` of `POST /ctms/batch`: a repeated request gets the first response, and has no effect."""

from __future__ import annotations

import itertools
from threading import Event
from typing import Any

import pytest

from ctms.clients import idempotency
from ctms.clients.idempotency import MAX_KEY_LENGTH, OTHER_REQUEST
from ctms.database import pool
from tests.api.batching import by_address, results, send
from tests.contacts.factories import address, minimal
from tests.contacts.rows import execute
from tests.http import ApiClient, assert_error

COUNT = "SELECT count(*) FROM idempotency_keys"
AGE = "UPDATE idempotency_keys SET created_at = created_at - interval '24 hours 1 second'"


def test_a_repeated_request_gets_the_same_response(api: ApiClient) -> None:
    items = [by_address(address(), {"email": {"first_name": "Jane"}}), by_address(address(), mode="update"), "invalid"]

    first = send(api, *items, key="key")
    email_id = first.json["items"][0]["email_id"]
    api.patch(f"/ctms/{email_id}", {"email": {"first_name": "Joan"}})
    again = send(api, *items, key="key")

    assert again.status_code == 207
    assert again.text == first.text
    assert api.get(f"/ctms/{email_id}").json["email"]["first_name"] == "Joan"
    assert execute(COUNT) == 1


def test_the_order_of_members_makes_no_difference(api: ApiClient) -> None:
    text = address()
    item = {"match": {"primary_email": text}, "mode": "upsert", "contact": {}}

    first = send(api, item, key="key")

    assert send(api, dict(reversed(item.items())), key="key").text == first.text


@pytest.mark.parametrize("atomic", [True, False])
def test_another_request_with_the_key_is_refused(api: ApiClient, atomic: bool) -> None:
    items = [by_address(address())]
    send(api, *items, key="key")

    answer = send(api, *(items if atomic else [by_address(address())]), key="key", atomic=atomic)

    assert_error(answer, 422, OTHER_REQUEST)


def test_clients_have_keys_of_their_own(api: ApiClient, make_client: Any) -> None:
    send(api, by_address(address()), key="key")

    [result] = results(make_client("manage_contacts"), by_address(address()), key="key")

    assert result["status"] == "created"


def test_an_error_leaves_the_key_free(api: ApiClient, make_client: Any) -> None:
    text = address()
    assert_error(send(api, by_address(text), by_address("x"), key="key", atomic=True), 409)
    assert_error(send(make_client(), by_address(text), key="key"), 403)

    assert results(api, by_address(text), key="key")[0]["status"] == "created"


@pytest.mark.parametrize("key", ["", " ", "k\u00e4y"])
def test_a_key_that_the_server_cannot_pass_is_refused(api: ApiClient, key: str) -> None:
    """Else a repeated request would be written again. Granian passes a key that is not ASCII as an empty one."""
    text = address()

    assert_error(send(api, by_address(text), key=key), 422, at=[["header", "Idempotency-Key"]])
    assert api.get(f"/ctms?primary_email={text}").json == []


def test_a_key_that_is_too_long(api: ApiClient) -> None:
    assert_error(
        send(api, by_address(address()), key="x" * (MAX_KEY_LENGTH + 1)), 422, at=[["header", "Idempotency-Key"]]
    )
    assert send(api, by_address(address()), key="x" * MAX_KEY_LENGTH).status_code == 207


def test_no_key_and_no_address_is_stored(api: ApiClient) -> None:
    text = address()
    send(
        api,
        by_address(text),
        {"mode": "create", "contact": minimal(primary_email=text)},
        by_address("x@y"),
        key="a key",
    )

    stored = execute("SELECT row_to_json(k)::text FROM idempotency_keys k")

    for secret in (text, text.partition("@")[0], "a key", "x@y"):
        assert secret not in stored
        assert secret.encode().hex() not in stored


def test_a_key_is_free_again_after_a_day(api: ApiClient) -> None:
    text = address()
    send(api, by_address(text), key="key")
    execute(AGE)

    assert results(api, by_address(text), key="key")[0]["status"] == "unchanged"
    assert results(api, by_address(text), key="key")[0]["status"] == "unchanged"
    assert execute(COUNT) == 1


def test_old_keys_are_purged(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "BATCH", 2)
    for number in range(5):
        send(api, by_address(address()), key=f"key {number}")
    execute(AGE)
    send(api, by_address(address()), key="new")

    with pool.reading() as connection:
        assert idempotency.purge(connection, Event()) == 5
    assert execute(COUNT) == 1


def test_a_stopping_worker_stops_the_purge(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "BATCH", 1)
    for number in range(3):
        send(api, by_address(address()), key=f"key {number}")
    execute(AGE)
    stopping = Event()
    answers = itertools.chain([False], itertools.repeat(True))
    monkeypatch.setattr(stopping, "is_set", lambda: next(answers))

    with pool.reading() as connection:
        assert idempotency.purge(connection, stopping) == 1
    assert execute(COUNT) == 2


def test_keys_leave_with_their_client(api: ApiClient) -> None:
    send(api, by_address(address()), key="key")

    execute("DELETE FROM api_client WHERE client_id = 'id_test'")

    assert execute(COUNT) == 0
