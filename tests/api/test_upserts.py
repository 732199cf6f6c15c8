"""`PUT /ctms?primary_email=…`: create or replace a contact by its address."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from ctms.database import pool
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import suppress
from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import insert_contact
from tests.http import Answer, ApiClient, assert_error


def put(api: ApiClient, text: str, contact: Any, **headers: str) -> Answer:
    """Create or replace the contact with an address."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.put("/ctms", contact, query_string={"primary_email": text}, headers=sent)


def test_it_creates_a_contact(api: ApiClient) -> None:
    contact = full()
    text = contact["email"]["primary_email"]

    created = put(api, text, contact)

    assert created.status_code == 201
    assert created.headers["Location"] == f"/ctms/{contact['email']['email_id']}"
    read = api.get(created.headers["Location"])
    assert created.json == read.json
    assert created.headers["ETag"] == read.headers["ETag"]
    assert api.post("/ctms", contact).status_code == 200, "it is the same as by POST"


def test_it_replaces_everything(api: ApiClient) -> None:
    stored = api.post("/ctms", full()).json
    text = stored["email"]["primary_email"]

    replaced = put(api, text.upper(), {"email": {"primary_email": text}, "newsletters": [{"name": "new"}]})

    assert replaced.status_code == 200
    assert replaced.json["email"]["email_id"] == stored["email"]["email_id"]
    assert replaced.json["email"]["first_name"] is None
    assert [one["name"] for one in replaced.json["newsletters"]] == ["new"]
    assert replaced.json["waitlists"] == []
    assert put(api, text, minimal(primary_email=text)).status_code == 200


def test_another_address_in_the_body_is_invalid(api: ApiClient) -> None:
    answer = put(api, address(), minimal())

    assert_error(answer, 422, "primary_email in query must match primary_email in contact")


def test_a_plus_sign_needs_no_escape(api: ApiClient) -> None:
    text = f"a+{address()}"

    assert api.put(f"/ctms?primary_email={text}", minimal(primary_email=text)).status_code == 201


def test_the_address_is_required(api: ApiClient) -> None:
    assert_error(api.put("/ctms", minimal()), 422, at=[["query", "primary_email"]])
    assert_error(api.put("/ctms?fxa_id=1", minimal()), 422, at=[["query", "primary_email"]])


def test_the_id_cannot_change(api: ApiClient) -> None:
    stored = api.post("/ctms", minimal()).json["email"]
    contact = minimal(primary_email=stored["primary_email"], email_id=str(uuid.uuid4()))

    assert_error(put(api, stored["primary_email"], contact), 422, "cannot change email_id")


@pytest.mark.parametrize("name", ["email_id", "basket_token"])
@pytest.mark.parametrize("exists", [True, False])
def test_an_identity_of_another_contact_is_a_conflict(api: ApiClient, name: str, exists: bool) -> None:
    other = api.post("/ctms", full()).json
    text = address()
    if exists:
        api.post("/ctms", minimal(primary_email=text))

    answer = put(api, text, minimal(primary_email=text, **{name: other["email"][name]}))

    if exists and name == "email_id":
        assert_error(answer, 422, "cannot change email_id")
    else:
        assert assert_error(answer, 409)["field"] == name
    assert api.get(f"/ctms/{other['email']['email_id']}").json == other


def test_an_address_of_two_contacts_is_a_conflict(api: ApiClient) -> None:
    for domain in ("müller.example", "xn--mller-kva.example"):
        insert_contact(primary_email=f"jane@{domain}")

    assert_error(put(api, "jane@müller.example", minimal(primary_email="jane@müller.example")), 409)


@pytest.mark.usefixtures("erasure_key")
def test_a_suppressed_address_is_refused(api: ApiClient) -> None:
    text = address()
    with pool.writing() as connection:
        suppress(connection, fingerprints().all_of(text), "command")

    assert_error(put(api, text, minimal(primary_email=text)), 403, "Address is suppressed")
    assert api.get(f"/ctms?primary_email={text}").json == []


def test_if_match(api: ApiClient) -> None:
    text = address()
    contact = minimal(primary_email=text)

    assert_error(put(api, text, contact, If_Match="*"), 412)
    tag = put(api, text, contact).headers["ETag"]
    assert put(api, text, minimal(primary_email=text, first_name="Jane"), If_Match=tag).status_code == 200
    assert_error(put(api, text, contact, If_Match=tag), 412)


def test_an_unauthorized_caller_changes_nothing(api: ApiClient, make_client: Any) -> None:
    text = address()

    assert_error(put(make_client("view_contacts"), text, minimal(primary_email=text)), 403)
    assert api.get(f"/ctms?primary_email={text}").json == []
