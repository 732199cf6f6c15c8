"""`/openapi.json`: valid, complete, and as strict as the parsing of requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from ctms.api.openapi import examples
from tests.api.described import METHODS, Described, described
from tests.contacts.factories import full, minimal
from tests.http import ApiClient, assert_error

# The assets of the pages are no part of the API.
UNDOCUMENTED = {"/docs/assets/{version}/{name}"}


@pytest.fixture
def document(app: Flask) -> Described:
    return described(app)


def views(app: Flask, document: Described) -> Iterator[tuple[Any, str, dict[str, Any]]]:
    """Yield the view of every operation, its path, and the operation."""
    found = {}
    for rule in app.url_map.iter_rules():
        view: Any = app.view_functions[rule.endpoint]
        for method in rule.methods or ():
            function = getattr(view.view_class, method.lower(), None) if hasattr(view, "view_class") else view
            found[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower()] = function
    for method, path, operation in document.operations.values():
        yield found[path, method], path, operation


class TestDocument:
    def test_it_is_valid_openapi_3_1(self, document: Described) -> None:
        assert document.document["openapi"] == "3.1.0"
        assert [error.message for error in OpenAPIV31SpecValidator(document.document).iter_errors()] == []

    def test_it_names_every_route_and_no_other(self, app: Flask, document: Described) -> None:
        routes = {
            (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
            for rule in app.url_map.iter_rules()
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        }
        documented = {
            (path, method) for path, item in document.document["paths"].items() for method in METHODS & item.keys()
        }
        assert {route for route in routes if route[0] not in UNDOCUMENTED} == documented

    def test_every_operation_has_a_name_of_its_own_a_summary_and_a_tag_that_is_described(
        self, document: Described
    ) -> None:
        tags = {tag["name"] for tag in document.document["tags"]}
        operations = [
            operation
            for item in document.document["paths"].values()
            for method, operation in item.items()
            if method in METHODS
        ]
        assert len(document.operations) == len(operations)
        for operation in operations:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"])
            assert operation["summary"].endswith(".")
            assert "`" not in operation["summary"], "summaries are shown as plain text"
            assert set(operation["tags"]) <= tags

    def test_every_schema_is_described_and_used(self, document: Described) -> None:
        text = str(document.document)
        for name, schema in document.schemas.items():
            assert schema["description"], name
            assert f"'#/components/schemas/{name}'" in text, name
            assert not re.search(r"Schema\b", schema["description"]), "names of classes say nothing to clients"

    def test_a_client_with_the_current_document_gets_304(self, anonymous: ApiClient) -> None:
        first = anonymous.get("/openapi.json")

        again = anonymous.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})

        assert again.status_code == 304
        assert again.data == b""

    def test_addresses_are_relative_so_that_they_are_right_behind_a_prefix(self, document: Described) -> None:
        assert [server["url"] for server in document.document["servers"]] == ["./"]
        scheme = document.document["components"]["securitySchemes"]["OAuth2ClientCredentials"]
        assert scheme["type"] == "oauth2"
        assert scheme["flows"]["clientCredentials"]["tokenUrl"] == "token"


class TestSecurity:
    def test_operations_state_the_requirements_of_their_views(self, app: Flask, document: Described) -> None:
        for view, path, operation in views(app, document):
            if hasattr(view, "_ctms_permission"):
                assert operation["security"] == [{"OAuth2ClientCredentials": []}], path
                assert operation.get("x-permission") == view._ctms_permission
                assert ("403" in operation["responses"]) == (view._ctms_permission is not None)
                if view._ctms_permission:
                    assert f"Needs the permission `{view._ctms_permission}`." in operation["description"]
            else:
                is_link = any(one.get("name") == "signature" for one in operation.get("parameters", ()))
                assert ("403" in operation["responses"]) == is_link, path
                # The credentials of a token request may come by HTTP Basic.
                assert ("401" in operation["responses"]) == (path == "/token"), path

    def test_a_token_is_asked_for_with_a_form_or_http_basic(self, document: Described) -> None:
        operation = document.operations["create_token"][2]
        assert list(operation["requestBody"]["content"]) == ["application/x-www-form-urlencoded"]
        assert operation["security"] == [{}, {"ClientBasic": []}]


class TestConditions:
    def test_searches_and_exports_take_the_same(self, document: Described) -> None:
        reference = {"$ref": "#/components/schemas/Condition"}
        assert document.schemas["SearchRequest"]["properties"]["filter"] == reference
        exported = document.schemas["ExportBody"]["properties"]["filter"]
        assert exported["anyOf"] == [reference, {"type": "null"}]
        assert exported["description"].startswith("Condition that contacts must match")


class TestParameters:
    def parameters(self, document: Described, name: str) -> dict[str, Any]:
        _, path, operation = document.operations[name]
        given = [*document.document["paths"][path].get("parameters", []), *operation.get("parameters", [])]
        return {parameter["name"]: parameter for parameter in map(document.resolve, given)}

    def test_every_parameter_that_a_view_takes_is_documented(self, app: Flask, document: Described) -> None:
        for view, _, operation in views(app, document):
            arguments = getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", [])
            schemas = [one["schema"] for one in arguments if isinstance(one, dict) and one["in"] == "query"]
            taken = {field.data_key or name for schema in schemas for name, field in schema.fields.items()}
            found = self.parameters(document, operation["operationId"]).values()
            assert taken == {one["name"] for one in found if one["in"] == "query"}, operation["operationId"]

    @pytest.mark.parametrize(("name", "parameter"), [("write_contacts", "atomic"), ("upsert_contact", "primary_email")])
    def test_a_query_beside_a_body(self, document: Described, name: str, parameter: str) -> None:
        assert self.parameters(document, name)[parameter]["in"] == "query"

    def test_contacts_are_found_by_nine_identities(self, document: Described) -> None:
        for name in ("find_contacts", "find_identities"):
            found = self.parameters(document, name)
            assert [parameter for parameter in found if found[parameter]["in"] == "query"] == [
                "email_id",
                "primary_email",
                "basket_token",
                "sfdc_id",
                "mofo_contact_id",
                "mofo_email_id",
                "amo_user_id",
                "fxa_id",
                "fxa_primary_email",
            ]
            assert not any(found[parameter]["required"] for parameter in found)

    def test_updates_are_asked_for_from_an_instant_on(self, document: Described) -> None:
        found = self.parameters(document, "list_updates")
        assert {name for name, parameter in found.items() if parameter["required"]} == {"start"}
        assert found["start"]["schema"] == {"type": "string", "format": "date-time"}
        assert found["end"]["schema"] == {"type": "string", "format": "date-time"}
        assert found["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
        assert found["mofo_relevant"]["schema"] == {"type": "boolean"}

    def test_a_contact_is_named_by_its_id_but_deleted_by_its_address(self, document: Described) -> None:
        for name in ("read_contact", "put_contact", "patch_contact", "read_identity"):
            assert self.parameters(document, name)["email_id"]["schema"]["format"] == "uuid"
        deleted = self.parameters(document, "delete_contact")["email_id"]
        assert "format" not in deleted["schema"]
        assert "primary_email" in deleted["description"]

    @pytest.mark.parametrize(
        ("name", "header"),
        [
            ("read_contact", "If-None-Match"),
            ("put_contact", "If-Match"),
            ("patch_contact", "If-Match"),
            ("delete_contact", "If-Match"),
            ("upsert_contact", "If-Match"),
            ("merge_contact", "If-Match"),
            ("write_contacts", "Idempotency-Key"),
            ("erase_contacts", "Idempotency-Key"),
        ],
    )
    def test_conditions_are_headers(self, document: Described, name: str, header: str) -> None:
        assert self.parameters(document, name)[header]["in"] == "header"


LONG = "x" * 256
# Bodies that violate a schema, and whether parsing refuses them too.
REFUSED = {
    "no address": {"email": {}},
    "a number for a name": {"email": {"primary_email": "a@example.com", "first_name": 1}},
    "a name that is too long": {"email": {"primary_email": "a@example.com", "first_name": LONG}},
    "an unknown format": {"email": {"primary_email": "a@example.com", "email_format": "X"}},
    "null for a format": {"email": {"primary_email": "a@example.com", "email_format": None}},
    "null for a flag": {"email": {"primary_email": "a@example.com", "double_opt_in": None}},
    "an id that is none": {"email": {"primary_email": "a@example.com", "email_id": "1"}},
    "a date that is none": {**minimal(), "amo": {"last_login": "yesterday"}},
    "a group that is a list": {**minimal(), "amo": []},
    "a list that is a group": {**minimal(), "newsletters": {}},
    "no name": {**minimal(), "newsletters": [{}]},
    "an empty name": {**minimal(), "waitlists": [{"name": ""}]},
    "a language that is too short": {**minimal(), "newsletters": [{"name": "a", "lang": "e"}]},
    "fields that are a list": {**minimal(), "waitlists": [{"name": "a", "fields": []}]},
    "too many entries": {**minimal(), "newsletters": [{"name": str(i)} for i in range(1001)]},
    "DELETE in a new contact": {**minimal(), "amo": "DELETE"},
    "no object": [],
}
ACCEPTED = {
    "an address": minimal(),
    "everything": full(),
    "null for groups": {**minimal(), "amo": None, "fxa": None, "mofo": None, "newsletters": None, "waitlists": None},
    "null for text": minimal(first_name=None, email_lang=None, basket_token=None, email_id=None),
    "an internationalised address": {"email": {"primary_email": "jürgen@exämple.com"}},
    "as many entries as may be": {**minimal(), "newsletters": [{"name": str(i)} for i in range(1000)]},
    "an entry's texts": {**minimal(), "newsletters": [{"name": "a", "lang": None, "source": None}]},
}


def described_default(member: dict[str, Any]) -> Any:
    """Return the documented default of a member, None for null or none."""
    assert "default" not in member, "generators of TypeScript types require a member that has a default"
    told = re.search(r"Default: `(.*)`\.$", member.get("description", ""))
    return json.loads(told[1]) if told else None


class TestBodies:
    @pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
    def test_bodies_that_violate_the_schema_are_refused(self, api: ApiClient, document: Described, body: Any) -> None:
        assert document.problems({"$ref": "#/components/schemas/ContactInput"}, body) != []
        assert_error(api.post("/ctms", body), 422)

    @pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED)
    def test_bodies_that_match_the_schema_are_accepted(self, api: ApiClient, document: Described, body: Any) -> None:
        assert document.problems({"$ref": "#/components/schemas/ContactInput"}, body) == []
        assert api.post("/ctms", body).status_code == 201

    def test_documented_defaults_are_stored(self, api: ApiClient, document: Described) -> None:
        stored = api.post("/ctms", {**minimal(), "newsletters": [{"name": "a"}], "waitlists": [{"name": "b"}]}).json
        found = {
            "EmailInput": stored["email"],
            "AmoInput": stored["amo"],
            "FxaInput": stored["fxa"],
            "MofoInput": stored["mofo"],
            "NewsletterInput": stored["newsletters"][0],
            "WaitlistInput": stored["waitlists"][0],
        }
        for name, group in found.items():
            for member, described_member in document.schemas[name]["properties"].items():
                if (default := described_default(described_member)) is not None:
                    assert group[member] == default, member
        assert described_default(document.schemas["ContactInput"]["properties"]["newsletters"]) == []
        assert described_default(document.schemas["EmailInput"]["properties"]["email_format"]) == "H"
        assert described_default(document.schemas["WaitlistInput"]["properties"]["subscribed"]) is True

    def test_a_put_names_its_id(self, document: Described) -> None:
        assert document.schemas["EmailPut"]["required"] == ["email_id", "primary_email"]

    def test_a_patch_needs_nothing_but_the_names_of_entries_and_has_no_defaults(self, document: Described) -> None:
        patches = {name: schema for name, schema in document.schemas.items() if name.endswith("Patch")}
        assert set(patches) == {
            "ContactPatch",
            "EmailPatch",
            "AmoPatch",
            "FxaPatch",
            "MofoPatch",
            "NewsletterPatch",
            "WaitlistPatch",
        }
        for name, schema in patches.items():
            entry = name in {"NewsletterPatch", "WaitlistPatch"}
            assert schema.get("required", []) == (["name"] if entry else [])
            assert all(described_default(member) is None for member in schema["properties"].values())

    @pytest.mark.parametrize(
        ("member", "word"),
        [
            ("amo", "DELETE"),
            ("fxa", "DELETE"),
            ("mofo", "DELETE"),
            ("newsletters", "UNSUBSCRIBE"),
            ("waitlists", "UNSUBSCRIBE"),
        ],
    )
    def test_a_word_may_stand_for_a_group_in_a_patch(
        self, api: ApiClient, document: Described, member: str, word: str
    ) -> None:
        contact = api.post("/ctms", full()).json
        schema = {"$ref": "#/components/schemas/ContactPatch"}
        for patch, problems in (({member: word}, False), ({member: word.lower()}, True), ({member: None}, True)):
            assert bool(document.problems(schema, patch)) == problems
            answer = api.patch(f"/ctms/{contact['email']['email_id']}", patch)
            assert answer.status_code == (422 if problems else 200)

    def test_members_set_by_the_service_are_read_only(self, document: Described) -> None:
        for name in ("EmailInput", "AmoInput", "NewsletterInput", "WaitlistInput"):
            for member in ("create_timestamp", "update_timestamp"):
                assert document.schemas[name]["properties"][member]["readOnly"] is True
            assert "create_timestamp" not in document.schemas[name].get("required", [])

    @pytest.mark.parametrize("name", examples.CREATE)
    def test_examples_of_new_contacts_create_one(self, api: ApiClient, document: Described, name: str) -> None:
        body = examples.CREATE[name]["value"]
        assert document.problems({"$ref": "#/components/schemas/ContactInput"}, body) == []
        assert api.post("/ctms", body).status_code == 201

    @pytest.mark.parametrize("name", examples.PATCH)
    def test_examples_of_patches_change_the_example_of_put(
        self, api: ApiClient, document: Described, name: str
    ) -> None:
        contact, patch = examples.PUT["contact"]["value"], examples.PATCH[name]["value"]
        path = f"/ctms/{contact['email']['email_id']}"
        assert document.problems({"$ref": "#/components/schemas/ContactPut"}, contact) == []
        assert document.problems({"$ref": "#/components/schemas/ContactPatch"}, patch) == []
        before = api.put(path, contact)
        assert before.status_code == 201
        after = api.patch(path, patch)
        assert after.status_code == 200
        assert after.json != before.json
