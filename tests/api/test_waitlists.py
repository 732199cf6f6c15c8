"""`/waitlists` and the schemas in `/openapi.json`: documented fields are the accepted ones."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema_rs
import marshmallow as ma
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from ctms.clients.tokens import tokens
from ctms.errors import PluginError
from ctms.plugins import Waitlist, hookimpl
from ctms.testing.apps import Apps
from ctms.testing.plugins import points_of
from tests.clients.factories import create_client
from tests.contacts.factories import minimal
from tests.http import ApiClient

LISTS = {
    "hub": {
        "title": "Hub",
        "schema": {
            "required": ["referrer"],
            "properties": {
                "referrer": {"type": "string", "maxLength": 100},
                "seats": {"type": "integer", "minimum": 1, "maximum": 500},
            },
            "additionalProperties": False,
        },
    },
    "tree": {
        "title": "Tree",
        "description": "Its fields nest.",
        "schema": {
            "properties": {"root": {"$ref": "#/$defs/node"}, "self": {"$ref": "#"}},
            "additionalProperties": False,
            "$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}, "value": {"type": "integer"}}}},
        },
    },
    "c++.x": {"title": "A name with odd characters", "schema": {"maxProperties": 1}},
    "c++.*": {"title": "A pattern with odd characters", "schema": {"maxProperties": 0}},
    "relay-*": {"title": "Relays", "schema": {"required": ["geo"]}},
    "relay-eu-*": {"title": "European relays", "schema": {"maxProperties": 0}},
    "relay-eu-1": {"title": "A European relay", "schema": {"required": ["node"]}},
    "relay any": {"title": "A", "schema": {"maxProperties": 0}},
    "relay_any": {"title": "A", "schema": {"title": "Contact", "maxProperties": 0}},
    "Relay-any": {
        "title": "Titles",
        "schema": {
            "properties": {
                "title": {"title": "Contact", "enum": [{"title": "x", "$ref": "#"}]},
                "free": {"type": "object", "title": "Contact"},
            },
            "allOf": [{"title": "Contact", "not": {"title": "Contact", "required": ["no"]}}],
        },
    },
}


class Place(ma.Schema):
    """A place."""

    country = ma.fields.String(required=True, validate=ma.validate.OneOf(["de", "fr"]))
    note = ma.fields.String()


class Trip(ma.Schema):
    """A trip: destination and means."""

    where = ma.fields.Nested(Place, required=True, data_key="to")
    stops = ma.fields.List(ma.fields.Nested(Place), validate=ma.validate.Length(max=1))
    seats = ma.fields.Integer(strict=True, validate=ma.validate.Range(min=1), load_default=1)
    code = ma.fields.String(validate=ma.validate.Regexp("[A-Z]{2}"), allow_none=True)
    odd = ma.fields.String(validate=ma.validate.Regexp(r"(?i)x\Z"))
    made = ma.fields.String(dump_only=True)


class Trips:
    """A plugin of marshmallow schemas."""

    @hookimpl
    def ctms_waitlists(self) -> Iterator[Waitlist]:
        yield Waitlist(name="trip", title="Trip", description="Somewhere.", schema=Trip)
        yield Waitlist(name="free-trip", title="Free", schema=Place(), unknown="accept")
        yield Waitlist(name="lax-trip", title="Lax", schema=Place, unknown="drop")
        yield Waitlist(name="checked", title="Checked", check=dict)


ACCEPTED: list[tuple[str, Any]] = [
    ("hub", {"referrer": "a friend"}),
    ("hub", {"referrer": "", "seats": 500}),
    ("tree", {"root": {"next": {"next": {"value": 1}}}, "self": {"root": {}}}),
    ("tree", {}),
    ("c++.x", {"one": 1}),
    ("c++.y", {}),
    ("c++", {"one": 1}),
    ("ccc.y", {"one": 1}),
    ("relay", {"geo": None}),
    ("relay-x", {"geo": 1, "more": [2]}),
    ("relay-eu-", {}),
    ("relay-eu-1", {"node": 1}),
    ("relay any", {}),
    ("relay_any", {}),
    ("Relay-any", {"title": {"title": "x", "$ref": "#"}, "free": {"title": "y"}}),
    ("relayed", {"geo": "x", "more": {"a": 1}}),
    ("vpn", {"geo": "x" * 100, "platform": None}),
    ("checked", {"any": "thing"}),
    ("trip", {"to": {"country": "de"}}),
    ("trip", {"to": {"country": "fr", "note": "x"}, "stops": [{"country": "de"}], "seats": 2, "code": "AB"}),
    ("trip", {"to": {"country": "fr"}, "code": None, "odd": "X"}),
    ("free-trip", {"country": "de", "more": True}),
    ("lax-trip", {"country": "de", "more": True}),
    ("Hub", {}),
]
REFUSED: list[tuple[str, Any]] = [
    ("hub", {}),
    ("hub", {"referrer": 1}),
    ("hub", {"referrer": "x" * 101}),
    ("hub", {"referrer": "x", "seats": 0}),
    ("hub", {"referrer": "x", "seats": 501}),
    ("hub", {"referrer": "x", "seats": "5"}),
    ("hub", {"referrer": "x", "more": 1}),
    ("tree", {"root": {"next": {"next": {"value": "x"}}}}),
    ("tree", {"self": {"self": {"more": 1}}}),
    ("c++.x", {"one": 1, "two": 2}),
    ("c++.y", {"one": 1}),
    ("relay", {"platform": "x"}),
    ("relay", {"geo": 1}),
    ("relay-x", {}),
    ("relay-eu-x", {"geo": "x"}),
    ("relay-eu-1", {}),
    ("relay any", {"geo": "x"}),
    ("relay_any", {"geo": "x"}),
    ("Relay-any", {"title": "x"}),
    ("Relay-any", {"no": 1}),
    ("relayed", {"geo": 1}),
    ("vpn", {"geo": "x" * 101}),
    ("vpn", {"more": 1}),
    ("trip", {}),
    ("trip", {"to": {}}),
    ("trip", {"to": None}),
    ("trip", {"to": {"country": "it"}}),
    ("trip", {"to": {"country": "de", "more": 1}}),
    ("trip", {"to": {"country": "de"}, "stops": [{"country": "de"}, {"country": "de"}]}),
    ("trip", {"to": {"country": "de"}, "seats": 0}),
    ("trip", {"to": {"country": "de"}, "code": "xAB"}),
    ("trip", {"to": {"country": "de"}, "made": "x"}),
    ("trip", {"to": {"country": "de"}, "more": 1}),
    ("free-trip", {"more": True}),
    ("lax-trip", {"more": True}),
]


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of a file that declares `LISTS`."""
    file = tmp_path_factory.mktemp("lists") / "lists.json"
    file.write_text(json.dumps(LISTS))
    return str(file)


@pytest.fixture
def ctms_plugins() -> list[object]:
    return ["declared", "default_waitlist", "relay", "vpn", Trips]


@pytest.fixture
def ctms_environment(lists: str) -> Mapping[str, str]:
    return {"CTMS_PLUGIN_DECLARED_PATH": lists}


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get("/openapi.json").get_json()
    return found


def place_of_rules(document: dict[str, Any], entry: str, name: str) -> str:
    """Return where a client finds the schema of a waitlist's fields."""
    places: dict[str, str] = document["components"]["schemas"][entry]["properties"]["fields"]["x-schema-by-name"]
    patterns = [place for place in places if place.endswith("*") and name.startswith(place[:-1])]
    return places[name if name in places else max(patterns, key=len)]


def accepts(document: dict[str, Any], entry: str, name: str, fields: Any) -> bool:
    """Return whether the document accepts an entry of this name with these fields."""
    rules = place_of_rules(document, entry, name).removeprefix("#/components/schemas/")
    return fits(document, entry, {"name": name, "fields": fields}) and fits(document, rules, fields)


def fits(document: dict[str, Any], schema: str, value: Any) -> bool:
    """Return whether the value matches the document's schema of that name."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(whole).is_valid(value)


class TestEntries:
    @pytest.mark.parametrize(("name", "fields"), ACCEPTED)
    def test_accepted_fields_match_the_schema(
        self, api: ApiClient, document: dict[str, Any], name: str, fields: Any
    ) -> None:
        body = {**minimal(), "waitlists": [{"name": name, "fields": fields}]}
        patch = {"waitlists": body["waitlists"]}

        assert accepts(document, "WaitlistInput", name, fields)
        assert accepts(document, "WaitlistPatch", name, fields)
        created = api.post("/ctms", body)
        assert created.status_code == 201, created.text
        assert api.patch(f"/ctms/{created.json['email']['email_id']}", patch).status_code == 200

    @pytest.mark.parametrize(("name", "fields"), REFUSED)
    def test_refused_fields_do_not_match_the_schema(
        self, api: ApiClient, document: dict[str, Any], name: str, fields: Any
    ) -> None:
        body = {**minimal(), "waitlists": [{"name": name, "fields": fields}]}
        patch = {"waitlists": body["waitlists"]}
        path = f"/ctms/{api.post('/ctms', minimal()).json['email']['email_id']}"

        assert not accepts(document, "WaitlistInput", name, fields)
        assert not accepts(document, "WaitlistPatch", name, fields)
        for answer in (api.post("/ctms", body), api.patch(path, patch)):
            assert answer.status_code == 422, answer.text
            assert {tuple(problem["loc"][:4]) for problem in answer.json["detail"]} == {
                ("body", "waitlists", 0, "fields")
            }

    def test_the_names_are_those_of_the_list(self, api: ApiClient, document: dict[str, Any]) -> None:
        listed = [one["name"] for one in api.get("/waitlists").json]

        for entry in ("WaitlistInput", "WaitlistPatch"):
            schema = document["components"]["schemas"][entry]
            assert list(schema["properties"]["fields"]["x-schema-by-name"]) == listed
            assert schema.keys().isdisjoint({"allOf", "anyOf", "oneOf"})

    @pytest.mark.parametrize("name", ["hub", "tree", "trip", "relay", "relay-eu-1", "relayed"])
    def test_an_entry_without_fields_is_new_where_the_rules_let_it_be(
        self, api: ApiClient, document: dict[str, Any], name: str
    ) -> None:
        body = {**minimal(), "waitlists": [{"name": name}]}

        assert fits(document, "ContactInput", body)
        assert fits(document, "ContactPatch", {"waitlists": [{"name": name}]})
        assert accepts(document, "WaitlistInput", name, {}) == (api.post("/ctms", body).status_code == 201)

    def test_the_document_is_valid_and_names_each_waitlist(self, document: dict[str, Any]) -> None:
        assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
        schemas = document["components"]["schemas"]
        named = [name for name in schemas if name.startswith("Fields.")]
        assert len(named) == len(LISTS) + len(["checked", "free-trip", "lax-trip", "relay", "trip", "vpn", "*"])
        assert {"Fields.Relay-any", "Fields.relay_any_2", "Fields.relay_any_3"} <= set(named), named
        assert schemas["Fields.tree"]["description"] == ("Tree: fields of waitlist `tree`. Its fields nest.")
        assert schemas["Fields.trip"]["description"].endswith("A trip: destination and means.")

    def test_schemas_have_no_titles_and_values_keep_theirs(self, document: dict[str, Any]) -> None:
        (name,) = [name for name in document["components"]["schemas"] if name.startswith("Fields.Relay-any")]

        assert document["components"]["schemas"][name] == {
            "description": "Titles: fields of waitlist `Relay-any`.",
            "properties": {
                "title": {"enum": [{"title": "x", "$ref": "#"}]},
                "free": {"type": "object", "additionalProperties": True},
            },
            "allOf": [{"not": {"required": ["no"]}}],
        }

    def test_without_a_plugin_for_all_others_any_fields_are(self, apps: Apps) -> None:
        client = apps.get(points_of(["vpn"])).test_client()
        document = client.get("/openapi.json").get_json()

        assert fits(document, "WaitlistInput", {"name": "any", "fields": {"geo": 1}})
        entry = document["components"]["schemas"]["WaitlistInput"]
        assert entry["properties"]["fields"]["x-schema-by-name"] == {"vpn": "#/components/schemas/Fields.vpn"}
        for fields, good in (({"geo": 1}, False), ({}, True)):
            assert accepts(document, "WaitlistInput", "vpn", fields) == good

    def test_without_any_plugin_any_fields_are(self, apps: Apps) -> None:
        document = apps.get([]).test_client().get("/openapi.json").get_json()

        assert fits(document, "WaitlistInput", {"name": "vpn", "fields": {"geo": 1}})
        assert not fits(document, "WaitlistInput", {"name": "vpn", "fields": []})


class TestList:
    def test_waitlists_are_listed_by_exactness_with_their_plugins(self, api: ApiClient) -> None:
        listed = api.get("/waitlists").json

        assert [(one["name"], one["plugin"]) for one in listed] == [
            ("Relay-any", "declared"),
            ("c++.x", "declared"),
            ("checked", "trips"),
            ("free-trip", "trips"),
            ("hub", "declared"),
            ("lax-trip", "trips"),
            ("relay", "relay"),
            ("relay any", "declared"),
            ("relay-eu-1", "declared"),
            ("relay_any", "declared"),
            ("tree", "declared"),
            ("trip", "trips"),
            ("vpn", "vpn"),
            ("relay-eu-*", "declared"),
            ("relay-*", "declared"),
            ("c++.*", "declared"),
            ("*", "default_waitlist"),
        ]

    def test_each_has_words_and_the_schema_of_its_fields(self, api: ApiClient) -> None:
        listed = {one["name"]: one for one in api.get("/waitlists").json}

        assert listed["tree"] == {
            "name": "tree",
            "title": "Tree",
            "description": "Its fields nest.",
            "plugin": "declared",
            "schema": LISTS["tree"]["schema"],
        }
        assert listed["checked"]["schema"] == {"type": "object"}
        assert listed["vpn"]["schema"]["properties"]["geo"] == {"type": ["string", "null"], "maxLength": 100}
        trip = listed["trip"]["schema"]
        assert trip["description"] == "A trip: destination and means."
        assert (trip["required"], trip["additionalProperties"]) == (["to"], False)
        assert trip["properties"]["seats"] == {"type": "integer", "minimum": 1, "default": 1}
        assert listed["free-trip"]["schema"]["additionalProperties"] is True

    @pytest.mark.parametrize(("name", "fields"), [*ACCEPTED, *REFUSED])
    def test_the_first_schema_that_fits_the_name_decides(self, api: ApiClient, name: str, fields: Any) -> None:
        first = next(
            one
            for one in api.get("/waitlists").json
            if one["name"] == name or (one["name"].endswith("*") and name.startswith(one["name"][:-1]))
        )

        assert jsonschema_rs.is_valid(first["schema"], fields) == ((name, fields) in ACCEPTED)

    def test_callers_that_may_view_contacts_may_see_it(self, app: Flask) -> None:
        viewer = ApiClient(app.test_client(), tokens().issue(create_client("id_viewer", roles=["viewer"])))

        assert viewer.get("/waitlists").status_code == 200


def bad_plugin(**members: Any) -> object:
    """A plugin with a waitlist that cannot be described."""

    class Bad:
        @hookimpl
        def ctms_waitlists(self) -> Iterator[Waitlist]:
            yield Waitlist(name="bad", title="Bad", **members)

    return Bad


class Endless(ma.Schema):
    again = ma.fields.Nested(lambda: Endless())  # noqa: PLW0108  there is no `Endless` yet


class Unspeakable(ma.Schema):
    one_of = ma.fields.Raw(validate=ma.validate.OneOf([object()]))


@pytest.mark.parametrize(
    "members",
    [
        {"check": dict, "json_schema": {"type": "strnig"}},
        {"check": dict, "json_schema": {"$ref": "https://example.com/schema.json"}},
        {"check": dict, "json_schema": {"$ref": "#/$defs/nothing"}},
        {"check": dict, "json_schema": {"const": object()}},
        {"schema": Endless},
        {"schema": Unspeakable},
    ],
    ids=["no schema", "elsewhere", "nothing", "no JSON", "endless", "unspeakable"],
)
def test_rules_that_cannot_be_described_stop_the_start(apps: Apps, members: dict[str, Any]) -> None:
    with pytest.raises(PluginError, match=r"plugin 'bad' of .* the waitlist 'bad', whose fields have no JSON Schema"):
        apps.get(points_of([bad_plugin(**members)]))


def test_rules_that_break_without_fields_are_described_all_the_same(apps: Apps) -> None:
    def break_down(fields: dict[str, Any]) -> dict[str, Any]:
        raise RuntimeError(fields)

    client = apps.get(points_of([bad_plugin(check=break_down)])).test_client()

    document = client.get("/openapi.json").get_json()
    assert fits(document, "WaitlistInput", {"name": "bad"})
