"""`/identities` and `/identity/{email_id}`: the nine identities without other data."""

from __future__ import annotations

import uuid

import pytest

from tests.api.test_contacts import IDENTITIES, identities
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute
from tests.http import ApiClient, assert_error


@pytest.mark.parametrize("name", IDENTITIES)
def test_contacts_are_found_by_each_identity(api: ApiClient, name: str) -> None:
    contact = full()
    api.post("/ctms", contact)
    api.post("/ctms", full())

    found = api.get("/identities", query_string={name: identities(contact)[name]})

    assert found.status_code == 200
    assert found.json == [identities(contact)]
    assert list(found.json[0]) == list(IDENTITIES)


def test_all_given_identities_must_match(api: ApiClient) -> None:
    one, other = full(), full()
    api.post("/ctms", one)
    api.post("/ctms", other)

    assert api.get("/identities", query_string=identities(one)).json == [identities(one)]
    mixed = {**identities(one), "basket_token": identities(other)["basket_token"]}
    assert api.get("/identities", query_string=mixed).json == []


def test_without_an_identity_the_error_lists_them(api: ApiClient) -> None:
    detail = f"No identifiers provided, at least one is needed: {', '.join(IDENTITIES)}"

    assert_error(api.get("/identities"), 400, detail)
    assert_error(api.get("/identities?sfdc_id="), 400, detail)


def test_the_identities_of_one_contact(api: ApiClient) -> None:
    contact = full()
    api.post("/ctms", contact)
    bare = api.post("/ctms", minimal()).json["email"]

    assert api.get(f"/identity/{contact['email']['email_id']}").json == identities(contact)
    nothing = dict.fromkeys(IDENTITIES)
    known = {"email_id": bare["email_id"], "primary_email": bare["primary_email"]}
    assert api.get(f"/identity/{bare['email_id']}").json == {**nothing, **known}


def test_unknown_ids_and_texts_that_are_none(api: ApiClient) -> None:
    assert_error(api.get(f"/identity/{uuid.uuid4()}"), 404, "Unknown email_id")
    assert_error(api.get("/identity/jane"), 422, at=[["path", "email_id"]])
    assert_error(api.get("/identity/%00"), 422, at=[["path", "email_id"]])


@pytest.mark.parametrize("path", ["/identities", "/ctms"])
@pytest.mark.parametrize("name", IDENTITIES)
def test_irregular_values_find_nothing(api: ApiClient, path: str, name: str) -> None:
    api.post("/ctms", full())

    for value in ("\0", "%", "'; DROP TABLE emails; --", "x" * 5000, "\ufffe", " "):
        answer = api.get(path, query_string={name: value})

        assert answer.status_code in {200, 422}, answer.text
        assert answer.status_code == 422 or answer.json == []


def test_an_odd_token_is_shown_as_it_is_stored(api: ApiClient) -> None:
    email_id = api.post("/ctms", minimal()).json["email"]["email_id"]
    execute("UPDATE emails SET basket_token = 'odd' WHERE email_id = :id", id=email_id)

    assert api.get(f"/identity/{email_id}").json["basket_token"] == "odd"
    assert api.get("/identities", query_string={"email_id": email_id}).json[0]["basket_token"] == "odd"
