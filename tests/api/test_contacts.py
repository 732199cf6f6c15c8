"""`/ctms` in process: the status, body and headers of each operation."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import count
from tests.http import ApiClient, assert_error

IDENTITIES = (
    "email_id",
    "primary_email",
    "basket_token",
    "sfdc_id",
    "mofo_contact_id",
    "mofo_email_id",
    "amo_user_id",
    "fxa_id",
    "fxa_primary_email",
)
GROUPS = ("email", "amo", "fxa", "mofo", "newsletters", "waitlists")


def identities(contact: dict[str, Any]) -> dict[str, str]:
    """Return the nine identities of a full contact."""
    email, amo, fxa, mofo = contact["email"], contact["amo"], contact["fxa"], contact["mofo"]
    return {
        "email_id": email["email_id"],
        "primary_email": email["primary_email"],
        "basket_token": email["basket_token"],
        "sfdc_id": email["sfdc_id"],
        "mofo_contact_id": mofo["mofo_contact_id"],
        "mofo_email_id": mofo["mofo_email_id"],
        "amo_user_id": amo["user_id"],
        "fxa_id": fxa["fxa_id"],
        "fxa_primary_email": fxa["primary_email"],
    }


class TestCreate:
    def test_a_minimal_contact_has_every_group_with_its_defaults(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())

        assert created.status_code == 201
        assert created.headers["Location"] == f"/ctms/{created.json['email']['email_id']}"
        assert uuid.UUID(created.json["email"]["email_id"]).version == 4
        assert created.json["mofo"] == {"mofo_email_id": None, "mofo_contact_id": None, "mofo_relevant": False}
        assert created.json["newsletters"] == created.json["waitlists"] == []
        assert created.json["vpn_waitlist"] == {"geo": None, "platform": None}
        assert created.json["relay_waitlist"] == {"geo": None}
        assert created.json["status"] == "ok"
        read = api.get(created.headers["Location"])
        assert read.status_code == 200
        assert read.json == created.json

    def test_a_full_contact_is_returned_as_sent(self, api: ApiClient) -> None:
        contact = full()

        created = api.post("/ctms", contact)

        for group in ("email", "amo", "fxa", "mofo"):
            assert contact[group].items() <= created.json[group].items()
        for name in ("newsletters", "waitlists"):
            sent = {entry["name"]: entry for entry in contact[name]}
            assert [entry["name"] for entry in created.json[name]] == sorted(sent)
            assert all(sent[entry["name"]].items() <= entry.items() for entry in created.json[name])

    def test_creating_the_same_contact_is_idempotent_and_another_one_a_conflict(self, api: ApiClient) -> None:
        contact = full()
        first = api.post("/ctms", contact)

        again = api.post("/ctms", contact)

        assert again.status_code == 200
        assert again.json == first.json
        assert again.headers["Location"] == first.headers["Location"]
        other = assert_error(api.post("/ctms", {**contact, "amo": {"display_name": "Other"}}), 409)
        assert other == {"detail": "Contact already exists", "field": "email_id"}

    @pytest.mark.parametrize(
        ("group", "field"),
        [("email", "primary_email"), ("email", "basket_token"), ("fxa", "fxa_id"), ("mofo", "mofo_email_id")],
    )
    def test_a_taken_identity_is_a_conflict_that_names_its_field(self, api: ApiClient, group: str, field: str) -> None:
        taken = full()
        api.post("/ctms", taken)
        new = full()
        new[group][field] = taken[group][field]

        refused = assert_error(api.post("/ctms", new), 409)

        assert refused == {"detail": "Contact already exists", "field": field}
        assert api.get(f"/ctms/{new['email']['email_id']}").status_code == 404
        for table in GROUPS[1:]:
            assert count(table, new["email"]["email_id"]) == 0

    @pytest.mark.parametrize(
        ("group", "field"), [("email", "sfdc_id"), ("mofo", "mofo_contact_id"), ("amo", "user_id")]
    )
    def test_other_identities_may_be_shared(self, api: ApiClient, group: str, field: str) -> None:
        one, other = full(), full()
        other[group][field] = one[group][field]

        assert api.post("/ctms", one).status_code == 201
        assert api.post("/ctms", other).status_code == 201

    def test_addresses_are_one_in_any_case(self, api: ApiClient) -> None:
        contact = minimal()
        api.post("/ctms", contact)

        upper = minimal(primary_email=contact["email"]["primary_email"].upper())

        assert assert_error(api.post("/ctms", upper), 409)["field"] == "primary_email"

    def test_unknown_members_are_ignored(self, api: ApiClient) -> None:
        contact = {**minimal(shoe_size=42), "cat": "Tom", "newsletters": [{"name": "n", "colour": "red"}]}

        created = api.post("/ctms", contact)

        assert created.status_code == 201
        assert "shoe_size" not in created.text
        assert "colour" not in created.text


class TestRead:
    def test_unknown_ids_and_texts_that_are_none(self, api: ApiClient) -> None:
        assert_error(api.get(f"/ctms/{uuid.uuid4()}"), 404, "Unknown email_id")
        assert_error(api.get("/ctms/jane"), 422, at=[["path", "email_id"]])

    @pytest.mark.parametrize("name", IDENTITIES)
    def test_contacts_are_found_by_each_identity(self, api: ApiClient, name: str) -> None:
        contact = full()
        api.post("/ctms", full())
        created = api.post("/ctms", contact).json
        created.pop("status")

        found = api.get("/ctms", query_string={name: identities(contact)[name]})

        assert found.status_code == 200
        assert found.json == [created]
        assert api.get("/ctms", query_string={name: str(uuid.uuid4())}).json == []

    @pytest.mark.parametrize("name", ["primary_email", "fxa_primary_email"])
    def test_addresses_are_compared_without_case(self, api: ApiClient, name: str) -> None:
        contact = full()
        api.post("/ctms", contact)

        found = api.get("/ctms", query_string={name: identities(contact)[name].upper()})

        assert len(found.json) == 1

    def test_all_given_identities_must_match(self, api: ApiClient) -> None:
        contact, other = full(), full()
        api.post("/ctms", contact)
        api.post("/ctms", other)

        assert len(api.get("/ctms", query_string=identities(contact)).json) == 1
        mixed = {**identities(contact), "fxa_id": identities(other)["fxa_id"]}
        assert api.get("/ctms", query_string=mixed).json == []

    def test_contacts_that_share_an_identity_are_all_found(self, api: ApiClient) -> None:
        one, other = full(), full()
        other["amo"]["user_id"] = one["amo"]["user_id"]
        ids = [api.post("/ctms", contact).json["email"]["email_id"] for contact in (one, other)]

        found = api.get("/ctms", query_string={"amo_user_id": one["amo"]["user_id"]})

        assert [contact["email"]["email_id"] for contact in found.json] == ids

    @pytest.mark.parametrize("query", ["", "?primary_email=", "?nonsense=1"])
    def test_without_an_identity_the_error_lists_them(self, api: ApiClient, query: str) -> None:
        assert_error(
            api.get(f"/ctms{query}"),
            400,
            "No identifiers provided, at least one is needed: email_id, primary_email, basket_token, sfdc_id, "
            "mofo_contact_id, mofo_email_id, amo_user_id, fxa_id, fxa_primary_email",
        )

    @pytest.mark.parametrize("name", ["email_id", "basket_token"])
    def test_ids_that_are_no_uuids_are_refused(self, api: ApiClient, name: str) -> None:
        assert_error(api.get("/ctms", query_string={name: "jane"}), 422, at=[["query", name]])

    def test_head_answers_like_get_without_a_body(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())

        head = api.request("HEAD", created.headers["Location"])

        assert head.status_code == 200
        assert head.data == b""
        assert head.headers["ETag"] == created.headers["ETag"]
        assert api.request("HEAD", f"/ctms/{uuid.uuid4()}").status_code == 404


class TestReplace:
    def test_it_creates_and_always_answers_201(self, api: ApiClient) -> None:
        contact = full()
        path = f"/ctms/{contact['email']['email_id']}"

        created = api.put(path, contact)
        again = api.put(path, contact)

        assert created.status_code == again.status_code == 201
        assert created.headers["Location"] == again.headers["Location"] == path
        assert api.get(path).json == again.json

    def test_omitted_members_are_reset(self, api: ApiClient) -> None:
        contact = full()
        path = f"/ctms/{contact['email']['email_id']}"
        api.put(path, contact)

        email_id = contact["email"]["email_id"]
        bare = api.put(path, minimal(email_id=email_id))

        assert bare.json["newsletters"] == bare.json["waitlists"] == []
        assert bare.json["email"]["first_name"] is None
        assert bare.json["amo"]["display_name"] is None
        assert bare.json["fxa"]["fxa_id"] is None
        assert bare.json["mofo"]["mofo_relevant"] is False
        for table in GROUPS[1:]:
            assert count(table, email_id) == 0

    def test_the_ids_in_path_and_body_must_be_one(self, api: ApiClient) -> None:
        contact = full()

        refused = api.put(f"/ctms/{uuid.uuid4()}", contact)

        assert_error(refused, 422, "email_id in path must match email_id in contact")
        assert_error(api.put(f"/ctms/{uuid.uuid4()}", minimal()), 422, at=[["body", "email", "email_id"]])
        assert_error(api.put("/ctms/jane", contact), 422, at=[["path", "email_id"]])

    @pytest.mark.parametrize(
        ("group", "field"),
        [("email", "primary_email"), ("email", "basket_token"), ("fxa", "fxa_id"), ("mofo", "mofo_email_id")],
    )
    def test_a_taken_identity_is_a_conflict_and_nothing_changes(self, api: ApiClient, group: str, field: str) -> None:
        taken, contact = full(), full()
        path = f"/ctms/{contact['email']['email_id']}"
        api.post("/ctms", taken)
        before = api.put(path, contact).json
        clash = full(email={**full()["email"], "email_id": contact["email"]["email_id"]})
        clash[group][field] = taken[group][field]

        refused = assert_error(api.put(path, clash), 409)

        assert refused == {"detail": "Contact with primary_email or basket_token already exists", "field": field}
        assert api.get(path).json == before


class TestChange:
    def test_only_given_members_change(self, api: ApiClient) -> None:
        created = api.post("/ctms", full())

        changed = api.patch(created.headers["Location"], {"email": {"first_name": "Joan"}})

        assert changed.status_code == 200
        expected = created.json
        expected["email"]["first_name"] = "Joan"
        expected["email"]["update_timestamp"] = changed.json["email"]["update_timestamp"]
        assert changed.json == expected

    def test_nothing_given_moves_only_the_time(self, api: ApiClient) -> None:
        created = api.post("/ctms", full())

        changed = api.patch(created.headers["Location"], {})

        assert changed.status_code == 200
        assert changed.json["email"]["update_timestamp"] > created.json["email"]["update_timestamp"]
        changed.json["email"]["update_timestamp"] = created.json["email"]["update_timestamp"]
        assert changed.json == created.json

    def test_unknown_contacts_and_other_ids(self, api: ApiClient) -> None:
        created = api.post("/ctms", minimal())
        path = created.headers["Location"]

        assert_error(api.patch(f"/ctms/{uuid.uuid4()}", {"email": {"first_name": "J"}}), 404, "Unknown email_id")
        assert_error(api.patch(path, {"email": {"email_id": str(uuid.uuid4())}}), 422, "cannot change email_id")
        assert_error(api.patch("/ctms/jane", {}), 422, at=[["path", "email_id"]])
        assert api.patch(path, {"email": {"email_id": path.removeprefix("/ctms/")}}).status_code == 200

    @pytest.mark.parametrize(
        ("group", "field"),
        [("email", "primary_email"), ("email", "basket_token"), ("fxa", "fxa_id"), ("mofo", "mofo_email_id")],
    )
    def test_a_taken_identity_is_a_conflict_and_nothing_changes(self, api: ApiClient, group: str, field: str) -> None:
        taken = full()
        api.post("/ctms", taken)
        before = api.post("/ctms", full())
        patch: dict[str, Any] = {
            "email": {"first_name": "Joan"},
            "newsletters": "UNSUBSCRIBE",
            "waitlists": [{"name": "vpn", "subscribed": False}],
        }
        patch.setdefault(group, {})[field] = taken[group][field]

        refused = assert_error(api.patch(before.headers["Location"], patch), 409)

        assert refused == {
            "detail": "Contact with primary_email, basket_token, mofo_email_id, or fxa_id already exists",
            "field": field,
        }
        assert api.get(before.headers["Location"]).json == before.json


class TestDelete:
    def test_all_data_of_the_address_are_deleted_in_any_case(self, api: ApiClient) -> None:
        contact = full()
        path = api.post("/ctms", contact).headers["Location"]

        deleted = api.delete(f"/ctms/{contact['email']['primary_email'].upper()}")

        assert deleted.status_code == 200
        assert deleted.json == [identities(contact)]
        assert_error(api.get(path), 404, "Unknown email_id")
        for table in GROUPS[1:]:
            assert count(table, contact["email"]["email_id"]) == 0

    def test_an_unknown_address_is_named_as_it_was_given(self, api: ApiClient) -> None:
        given = f"Some+{address()}"

        assert_error(api.delete(f"/ctms/{given}"), 404, f"email {given} not found!")
        assert_error(api.delete("/ctms/%00"), 404, "email \0 not found!")
        assert_error(api.delete("/ctms/a%2Fb@example.com"), 404, "email a/b@example.com not found!")

    def test_patterns_and_parts_of_an_address_delete_nothing(self, api: ApiClient) -> None:
        contact = minimal()
        path = api.post("/ctms", contact).headers["Location"]

        for guess in ("%25", "_", contact["email"]["primary_email"][1:], f"x {contact['email']['primary_email']}"):
            assert api.delete(f"/ctms/{guess}").status_code == 404
        assert api.get(path).status_code == 200
