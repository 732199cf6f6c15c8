"""`/ctms` in the process: reading, creating, replacing, changing, deleting."""

from __future__ import annotations

from tests.contacts.factories import full, minimal
from tests.http import ApiClient, assert_error


def test_a_minimal_contact_has_every_group_with_its_defaults(api: ApiClient) -> None:
    created = api.post("/ctms", minimal())

    assert created.status_code == 201
    assert created.headers["Location"] == f"/ctms/{created.json['email']['email_id']}"
    assert created.json["mofo"] == {"mofo_email_id": None, "mofo_contact_id": None, "mofo_relevant": False}
    assert created.json["newsletters"] == []
    assert created.json["status"] == "ok"
    read = api.get(created.headers["Location"])
    assert read.status_code == 200
    assert read.json == created.json


def test_a_full_contact_comes_back_as_it_was_sent(api: ApiClient) -> None:
    contact = full()

    created = api.post("/ctms", contact)

    for group in ("email", "amo", "fxa", "mofo"):
        assert contact[group].items() <= created.json[group].items()
    for name in ("newsletters", "waitlists"):
        assert [entry["name"] for entry in created.json[name]] == [entry["name"] for entry in contact[name]]


def test_the_same_contact_again_is_no_error_and_another_one_is(api: ApiClient) -> None:
    contact = full()
    first = api.post("/ctms", contact)

    assert api.post("/ctms", contact).status_code == 200
    assert api.post("/ctms", contact).json == first.json
    assert_error(api.post("/ctms", {**contact, "amo": {"display_name": "Other"}}), 409, "Contact already exists")
