"""`/erasures` and DELETE: matching contacts, records, idempotency."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from ctms.clients.tokens import tokens
from ctms.suppression.fingerprints import fingerprints
from tests.clients.factories import create_client
from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import execute
from tests.erasure.handlers import CRM, SHOP, Handlers
from tests.http import Answer, ApiClient, assert_error

pytestmark = pytest.mark.usefixtures("nothing_erased")

NOBODY = "nobody@example.com"
ONE = {"emails": [NOBODY]}


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [Handlers()]


def address_of(contact: dict[str, Any]) -> str:
    found: str = contact["email"]["primary_email"]
    return found


def record_of(api: ApiClient, answer: Answer) -> dict[str, Any]:
    path = answer.headers.get("Location") or f"/erasures/{answer.headers['Erasure-Id']}"
    found: dict[str, Any] = api.get(path).json
    return found


class TestDelete:
    def test_a_record_contains_no_personal_data(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json

        deleted = api.delete(f"/ctms/{address_of(contact)}")

        record = record_of(api, deleted)
        times = {record.pop("requested_at")[:10]}
        for handler in record["handlers"]:
            times |= {handler.pop("started_at")[:10], handler.pop("changed_at")[:10]}
        counts = {"installed": True, "pending": 1, "done": 0, "verified": 0, "parked": 0, "reason": None}
        assert record == {
            "id": deleted.headers["Erasure-Id"],
            "requested_by": "client:id_test",
            "origin": "delete",
            "forget": False,
            "contacts": 1,
            "unknown": 0,
            "also_known_in": 0,
            "follows": [],
            "status": "pending",
            "handlers": [{"name": CRM, **counts}, {"name": SHOP, **counts}],
            "backends": [],
        }
        assert execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')") in times

    def test_a_handler_that_no_plugin_declares_any_more_is_not_installed(self, api: ApiClient) -> None:
        deleted = api.delete(f"/ctms/{address_of(api.post('/ctms', full()).json)}")
        execute("DELETE FROM erasure_tasks WHERE handler = :handler", handler=CRM)
        execute("UPDATE erasure_handlers SET handler = 'old' WHERE handler = :handler", handler=CRM)

        handlers = record_of(api, deleted)["handlers"]

        assert {one["name"]: one["installed"] for one in handlers} == {"old": False, SHOP: True}

    def test_each_handler_gets_the_identities_of_the_api(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json

        deleted = api.delete(f"/ctms/{address_of(contact)}")

        erasure = deleted.headers["Erasure-Id"]
        for name in (CRM, SHOP):
            told = execute(
                "SELECT identities FROM erasure_tasks WHERE erasure_id = :id AND handler = :name"
                " AND step = 'erase' AND due_at <= clock_timestamp() AND attempts = 0",
                id=erasure,
                name=name,
            )
            assert [told] == deleted.json

    def test_no_record_is_created_for_an_unknown_address(self, api: ApiClient) -> None:
        assert_error(api.delete(f"/ctms/{NOBODY}"), 404, f"email {NOBODY} not found!")

        assert execute("SELECT count(*) FROM erasures") == 0

    def test_nor_for_callers_without_the_permission_to_delete(self, app: Flask, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json
        editor = ApiClient(app.test_client(), tokens().issue(create_client("id_editor", roles=["editor"])))

        assert_error(editor.delete(f"/ctms/{address_of(contact)}"), 403, "Permission(s) required: delete_contacts")

        assert execute("SELECT count(*) FROM erasures") == execute("SELECT count(*) FROM erasure_tasks") == 0


class TestErase:
    def test_addresses_in_any_case_once_each(self, api: ApiClient, make_contact: Callable[..., Any]) -> None:
        one, two, kept = make_contact(), make_contact(), make_contact()
        emails = [address_of(one).upper(), address_of(one), address_of(two), NOBODY, NOBODY.upper()]

        erased = api.post("/erasures", {"emails": emails})

        assert erased.status_code == 202
        assert erased.json == {
            "id": erased.headers["Location"].removeprefix("/erasures/"),
            "contacts": 2,
            "unknown": 1,
            "also_known_in": 0,
        }
        for contact, status in ((one, 404), (two, 404), (kept, 200)):
            assert api.get(f"/ctms/{contact['email']['email_id']}").status_code == status
        record = record_of(api, erased)
        assert (record["origin"], record["contacts"], record["unknown"], record["forget"]) == ("api", 2, 1, False)
        assert [handler["pending"] for handler in record["handlers"]] == [2, 2]

    @pytest.mark.usefixtures("erasure_key")
    def test_an_address_that_was_erased_before_is_not_unknown(
        self, api: ApiClient, make_contact: Callable[..., Any]
    ) -> None:
        gone = address_of(make_contact())
        api.post("/erasures", {"emails": [gone]})

        again = api.post(
            "/erasures",
            {"emails": [gone.upper(), NOBODY], "identities": [{"primary_email": gone, "sfdc_id": "none"}]},
        )

        assert (again.json["contacts"], again.json["unknown"]) == (0, 2)
        assert record_of(api, again)["unknown"] == 2

    @pytest.mark.usefixtures("erasure_key")
    def test_identities_that_were_erased_before_are_not_unknown(self, api: ApiClient) -> None:
        contact = full()
        api.post("/ctms", contact)
        own, account = contact["email"]["primary_email"], contact["fxa"]["primary_email"]
        api.post("/erasures", {"emails": [own]})

        again = api.post(
            "/erasures",
            {
                "identities": [
                    {"fxa_primary_email": account.upper()},
                    {"primary_email": own, "fxa_primary_email": account},
                    {"primary_email": own, "fxa_primary_email": NOBODY},
                    {"fxa_primary_email": NOBODY},
                ]
            },
        )

        assert (again.json["contacts"], again.json["unknown"]) == (0, 2)

    def test_every_identity_finds(self, api: ApiClient) -> None:
        for member in (
            "email_id",
            "primary_email",
            "basket_token",
            "sfdc_id",
            "mofo_contact_id",
            "mofo_email_id",
            "amo_user_id",
            "fxa_id",
            "fxa_primary_email",
        ):
            email_id = api.post("/ctms", full()).json["email"]["email_id"]
            identity = api.get(f"/identity/{email_id}").json

            erased = api.post("/erasures", {"identities": [{member: identity[member]}]})

            assert erased.json["contacts"] == 1, member
            assert api.get(f"/ctms/{email_id}").status_code == 404

    def test_all_that_are_given_must_match_and_null_is_not_given(self, api: ApiClient) -> None:
        one, other = (api.post("/ctms", full()).json for _ in range(2))
        identity = api.get(f"/identity/{one['email']['email_id']}").json
        wrong = {"primary_email": address_of(one), "fxa_id": other["fxa"]["fxa_id"]}

        assert api.post("/erasures", {"identities": [wrong]}).json["unknown"] == 1
        erased = api.post("/erasures", {"identities": [{**identity, "sfdc_id": None}, wrong]})

        assert (erased.json["contacts"], erased.json["unknown"]) == (1, 1)
        assert api.get(f"/ctms/{other['email']['email_id']}").status_code == 200

    def test_an_identity_may_be_shared_and_a_contact_named_twice(self, api: ApiClient) -> None:
        contacts = [api.post("/ctms", minimal(sfdc_id="shared")).json for _ in range(3)]

        erased = api.post(
            "/erasures",
            {"emails": [address_of(contacts[0])], "identities": [{"sfdc_id": "shared"}, {"sfdc_id": "SHARED"}]},
        )

        assert (erased.json["contacts"], erased.json["unknown"]) == (3, 1)

    def test_odd_addresses_go_too(self, api: ApiClient, make_contact: Callable[..., Any]) -> None:
        email_id = make_contact()["email"]["email_id"]
        execute("UPDATE emails SET primary_email = 'No Address, \"this\"' WHERE email_id = :id", id=email_id)

        assert api.post("/erasures", {"emails": ['no address, "THIS"']}).json["contacts"] == 1

    def test_as_many_as_may_be(self, api: ApiClient) -> None:
        execute(
            "INSERT INTO emails (primary_email) SELECT 'person-' || n || '@example.com' FROM generate_series(1, 5000) n"
        )
        execute("ANALYZE emails, amo, fxa, mofo, newsletters, waitlists")

        erased = api.post("/erasures", {"emails": [f"Person-{number}@example.com" for number in range(1, 5001)]})

        assert erased.json["contacts"] == 5000
        assert execute("SELECT count(*) FROM erasure_tasks") == 10_000


REFUSED: dict[str, tuple[Any, list[Any]]] = {
    "nothing": ({}, ["body"]),
    "nobody": ({"emails": [], "identities": []}, ["body"]),
    "one address": ({"emails": "jane@example.com"}, ["body", "emails"]),
    "a number": ({"emails": ["jane@example.com", 1]}, ["body", "emails", 1]),
    "blank": ({"emails": [""]}, ["body", "emails", 0]),
    "U+0000": ({"emails": ["jane\0@example.com"]}, ["body", "emails", 0]),
    "too long": ({"emails": ["x" * 256]}, ["body", "emails", 0]),
    "too many": ({"emails": ["jane@example.com"] * 5001}, ["body", "emails"]),
    "too many together": (
        {"emails": ["jane@example.com"] * 5000, "identities": [{"fxa_id": "1"}]},
        ["body"],
    ),
    "no identity": ({"identities": [{}]}, ["body", "identities", 0]),
    "no identity but null": ({"identities": [{"fxa_id": None}]}, ["body", "identities", 0]),
    "no object": ({"identities": ["jane@example.com"]}, ["body", "identities", 0]),
    "no id": ({"identities": [{"email_id": "jane"}]}, ["body", "identities", 0, "email_id"]),
    "a misspelt identity": (
        {"identities": [{"sfdc_id": "jane", "fxaid": "x"}]},
        ["body", "identities", 0, "fxaid"],
    ),
    "a misspelt member": ({"emails": ["jane@example.com"], "forgett": True}, ["body", "forgett"]),
    "no flag": ({"emails": ["jane@example.com"], "forget": "perhaps"}, ["body", "forget"]),
}


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_problems_name_their_place_and_nothing_is_deleted(self, api: ApiClient, name: str) -> None:
        execute("INSERT INTO emails (primary_email) VALUES ('jane@example.com')")
        body, place = REFUSED[name]

        refused = api.post("/erasures", body)

        assert_error(refused, 422, at=[place])
        assert "jane" not in refused.text
        assert execute("SELECT count(*) FROM emails") == 1
        assert execute("SELECT count(*) FROM erasures") == 0

    def test_forgetting_without_a_key(self, api: ApiClient, make_contact: Callable[..., Any]) -> None:
        contact = make_contact()

        refused = api.post("/erasures", {"emails": [address_of(contact)], "forget": True})

        assert_error(refused, 422, at=[["body", "forget"]])
        assert "CTMS_ERASURE_KEY" in refused.json["detail"][0]["msg"]
        assert api.get(f"/ctms/{contact['email']['email_id']}").status_code == 200

    def test_a_record_that_there_is_not(self, api: ApiClient) -> None:
        assert_error(api.get(f"/erasures/{uuid.uuid4()}"), 404, "Unknown erasure")
        assert_error(api.get("/erasures/1"), 422, at=[["path", "erasure_id"]])

    def test_callers_that_may_delete_but_not_view(self, app: Flask, api: ApiClient) -> None:
        viewer = ApiClient(app.test_client(), tokens().issue(create_client("id_viewer", roles=["viewer"])))

        assert_error(
            viewer.get(api.post("/erasures", ONE).headers["Location"]), 403, "Permission(s) required: view_erasures"
        )


@pytest.mark.usefixtures("erasure_key")
class TestForget:
    def test_the_address_cannot_come_back(self, api: ApiClient, make_contact: Callable[..., Any]) -> None:
        contact, other = make_contact(), make_contact()
        gone = address_of(contact)

        assert api.post("/erasures", {"emails": [gone], "forget": True}).status_code == 202

        email_id = other["email"]["email_id"]
        put = {"email": {"email_id": email_id, "primary_email": gone.upper()}}
        for refused in (
            api.post("/ctms", {"email": {"primary_email": gone}}),
            api.post("/ctms", {"email": {"primary_email": gone.title()}}),
            api.put(f"/ctms/{email_id}", put),
            api.patch(f"/ctms/{email_id}", {"email": {"primary_email": gone}}),
        ):
            assert_error(refused, 403, "Address is suppressed")
        assert api.get(f"/ctms/{email_id}").json == {**other, "status": "ok"}
        assert api.patch(f"/ctms/{email_id}", {"email": {"first_name": "Joan"}}).status_code == 200

    def test_an_address_that_is_only_deleted_may(self, api: ApiClient, make_contact: Callable[..., Any]) -> None:
        contact = make_contact()

        api.post("/erasures", {"emails": [address_of(contact)]})

        assert api.post("/ctms", {"email": {"primary_email": address_of(contact)}}).status_code == 201

    def test_forgotten_unknown_addresses_and_other_identities_are_refused(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json
        unknown = address()
        wanted = [{"fxa_id": contact["fxa"]["fxa_id"]}, {"primary_email": unknown, "sfdc_id": "none"}]

        api.post("/erasures", {"identities": wanted, "forget": True})

        for gone in (address_of(contact), unknown):
            assert_error(api.post("/ctms", {"email": {"primary_email": gone}}), 403, "Address is suppressed")

    def test_the_record_is_found_by_either_address(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json

        erasure = api.delete(f"/ctms/{address_of(contact)}").headers["Erasure-Id"]

        for known in (address_of(contact), contact["fxa"]["primary_email"]):
            found = execute(
                "SELECT erasure_id FROM erasure_addresses WHERE fingerprint = :f", f=fingerprints().of(known.upper())
            )
            assert str(found) == erasure


class TestOnce:
    @pytest.fixture(params=["with a key of ours", "without"])
    def send(self, request: pytest.FixtureRequest, api: ApiClient) -> Callable[..., Answer]:
        if request.param == "with a key of ours":
            request.getfixturevalue("erasure_key")

        def send(body: Any = None, key: str = "7f3b", client: ApiClient = api) -> Answer:
            return client.post("/erasures", body or ONE, headers={"Idempotency-Key": key})

        return send

    def test_a_repeated_request_gets_the_same_response_without_effect(
        self, api: ApiClient, send: Callable[..., Answer], make_contact: Callable[..., Any]
    ) -> None:
        contact = make_contact()
        body = {"emails": [address_of(contact), NOBODY]}
        first = send(body)
        api.post("/ctms", {"email": {"primary_email": address_of(contact)}})

        again = send(body)

        assert (again.status_code, again.json, again.headers["Location"]) == (
            202,
            first.json,
            first.headers["Location"],
        )
        assert first.json["contacts"] == first.json["unknown"] == 1
        assert len(api.get("/ctms", query_string={"primary_email": address_of(contact)}).json) == 1
        assert execute("SELECT count(*) FROM erasures") == 1

    def test_another_key_is_another_request_and_so_is_that_of_another_client(
        self, app: Flask, send: Callable[..., Answer]
    ) -> None:
        other = ApiClient(app.test_client(), tokens().issue(create_client("id_other", roles=["admin"])))

        ids = {
            answer.json["id"] for answer in (send(), send(key="7F3B"), send(client=other), send(key=""), send(key=""))
        }

        assert len(ids) == 5

    def test_a_request_that_was_refused_has_not_used_its_key(self, send: Callable[..., Answer]) -> None:
        assert send({"emails": [1]}).status_code == 422
        assert send(ONE).status_code == 202

    def test_a_key_that_is_too_long(self, send: Callable[..., Answer]) -> None:
        assert send(key="x" * 255).status_code == 202
        assert_error(send(key="x" * 256), 422, at=[["header", "Idempotency-Key"]])


@pytest.mark.usefixtures("erasure_key")
@pytest.mark.parametrize("other", [{"emails": ["other@example.com"]}, {**ONE, "forget": True}])
def test_one_key_for_two_requests(api: ApiClient, other: Any) -> None:
    headers = {"Idempotency-Key": "7f3b"}
    first = api.post("/erasures", ONE, headers=headers)

    assert_error(api.post("/erasures", other, headers=headers), 422, "Idempotency-Key was used for another request")
    assert api.post("/erasures", {**ONE, "forget": False}, headers=headers).json == first.json


def test_without_a_key_of_ours_nothing_of_the_body_is_kept(api: ApiClient) -> None:
    api.post("/erasures", ONE, headers={"Idempotency-Key": "7f3b"})

    assert execute("SELECT request_key IS NOT NULL AND request_digest IS NULL FROM erasures") is True
