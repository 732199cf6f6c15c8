"""Data is loaded with the results and the errors of marshmallow."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import marshmallow as ma
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctms.batches.items import BatchItemSchema, BatchMatchSchema, BatchResult, parse_item
from ctms.contacts import fields
from ctms.contacts.evidence import EvidenceSchema
from ctms.contacts.loading import LOADED_BY_MARSHMALLOW, Loader
from ctms.contacts.problems import flatten
from ctms.contacts.registry import NewsletterSchema
from ctms.contacts.schemas import ContactPatchSchema, ContactPutSchema, ContactSchema
from tests.contacts.factories import full, minimal

SCHEMAS = (
    ContactSchema(),
    ContactPutSchema(),
    ContactPatchSchema(),
    BatchItemSchema(),
    BatchMatchSchema(),
    EvidenceSchema(),
    NewsletterSchema(partial=["lang", "evidence"]),
    NewsletterSchema(partial=True),
)
CONTACTS = [full(), minimal()]
VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2.5, float("inf"), "", "H", "T", "DELETE", "UNSUBSCRIBE", "yes", "NO", "perhaps"),
        *("x" * 5, "x" * 6, "x" * 256, "a\0b", "\ud800", "2020-01-27", "2020-02-30", "20200127", "http://Example.com"),
        *("jane@example.com", "Jane <Jane@EXAMPLE.com>", "jane@bücher.example", "not an address", "jane@localhost"),
        *("332de237-cab7-4461-bcc3-48e68f42bd5c", "332DE237CAB74461BCC348E68F42BD5C", "332de237-cab7-1461-bcc3"),
        *({}, [], [None], [{}], {"geo": "fr"}, {"geo": 7}, {"ip": "127.0.0.1"}, {"ip": "x"}, {"anything": 1}),
    ]
)


def shown(value: Any) -> Any:
    """Return a value with its types and the order of its members, which `==` ignores."""
    if isinstance(value, Mapping):
        return [(key, shown(one)) for key, one in value.items()]
    return [shown(one) for one in value] if isinstance(value, list | tuple) else (type(value).__name__, value)


def load(schema: ma.Schema, data: Any) -> Any:
    """Return what the schema loads, or its errors."""
    try:
        return shown(schema.load(copy.deepcopy(data)))
    except ma.ValidationError as error:
        return sorted(map(str, flatten(error.messages)))


def load_by_marshmallow(schema: ma.Schema, data: Any) -> Any:
    """Return what marshmallow loads, without this project's loader."""
    with patch.object(Loader, "load", return_value=LOADED_BY_MARSHMALLOW):
        return load(schema, data)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return the containers in the value with their keys or indices."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, one in items for found in [(value, key), *places(one)]]


@st.composite
def contacts(draw: st.DrawFn) -> dict[str, Any]:
    """Generate contacts in which some values are replaced, members are missing, or are added."""
    values = VALUES.map(copy.deepcopy)
    contact: dict[str, Any] = copy.deepcopy(draw(st.sampled_from(CONTACTS)))
    for entry in contact.get("newsletters", ()):
        if draw(st.booleans()):
            entry["evidence"] = {"form": "footer", "other": [1]}
    for _ in range(draw(st.integers(0, 3))):
        found = places(contact)
        if not found:
            break
        holder, key = draw(st.sampled_from(found))
        action = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
        if action == "replace":
            holder[key] = draw(values)
        elif action == "remove":
            del holder[key]
        elif isinstance(holder, list):
            holder.append(draw(values) if action == "add" else copy.deepcopy(holder[key]))
        else:
            holder[draw(st.sampled_from(["unknown", "create_timestamp", "evidence", "name"]))] = draw(values)
    return contact


CHECK = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class TestContacts:
    @CHECK
    @given(contact=contacts())
    @pytest.mark.parametrize("schema", SCHEMAS[:3], ids=lambda schema: type(schema).__name__)
    def test_contacts(self, app: Flask, schema: ma.Schema, contact: Any) -> None:
        with app.app_context():
            assert load(schema, contact) == load_by_marshmallow(schema, contact)

    @CHECK
    @given(data=st.one_of(VALUES, st.dictionaries(st.sampled_from([*SCHEMAS[3].fields, *SCHEMAS[4].fields]), VALUES)))
    @pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: type(schema).__name__)
    def test_other_data(self, app: Flask, schema: ma.Schema, data: Any) -> None:
        with app.app_context():
            assert load(schema, data) == load_by_marshmallow(schema, data)

    @CHECK
    @given(data=st.dictionaries(st.sampled_from(list(NewsletterSchema().fields)), VALUES))
    @pytest.mark.parametrize("schema", SCHEMAS[5:], ids=lambda schema: type(schema).__name__)
    def test_entries(self, app: Flask, schema: ma.Schema, data: Any) -> None:
        with app.app_context():
            assert load(schema, data) == load_by_marshmallow(schema, data)

    @CHECK
    @given(
        contact=contacts(),
        item=st.fixed_dictionaries(
            {"mode": st.sampled_from(["create", "update", "upsert", "delete"])},
            optional={
                "match": st.sampled_from(
                    [{"primary_email": "jane@example.com"}, {"sfdc_id": "x"}, {}, {"fxa_id": "a", "sfdc_id": "b"}]
                ),
                "if_match": VALUES,
                "unknown": VALUES,
            },
        ),
    )
    def test_items_of_batches_and_imports(self, app: Flask, contact: Any, item: Any) -> None:
        def parsed() -> Any:
            found = parse_item(copy.deepcopy({**item, "contact": contact}))
            if isinstance(found, BatchResult):
                return sorted(map(str, found.problems))
            return shown([found.mode, found.match, found.values, found.if_match])

        with app.app_context():
            fast = parsed()
            with patch.object(Loader, "load", return_value=LOADED_BY_MARSHMALLOW):
                assert fast == parsed()


def marshmallow_loads(schema: ma.Schema, data: Any) -> bool:
    """Return whether marshmallow loads the data."""
    return Loader(schema).load(data) is LOADED_BY_MARSHMALLOW


class Inner(fields.Schema):
    number = fields.Boolean(required=True)


class Plain(fields.Schema):
    renamed = fields.String(data_key="given", attribute="stored")
    listed = ma.fields.List(ma.fields.String(), load_default=list)
    inner = fields.SubDocument(Inner)
    default = fields.String(load_default="x")


class TestSchemas:
    def test_contacts_are_not_loaded_by_marshmallow(self, app: Flask) -> None:
        with app.app_context():
            assert not any(marshmallow_loads(schema, full()) for schema in SCHEMAS[:3])
            assert not any(marshmallow_loads(schema, minimal()) for schema in (SCHEMAS[0], SCHEMAS[2]))

    def test_names_and_defaults(self) -> None:
        data = {"given": "a", "unknown": 1, "inner": {"number": "yes"}}

        first, second = Loader(Plain()).load(data), Plain().load({})

        assert first == {"stored": "a", "inner": {"number": True}, "listed": [], "default": "x"}
        assert second == {"listed": [], "default": "x"}
        assert first["listed"] is not second["listed"]

    def test_the_result_has_the_order_of_the_schema(self) -> None:
        """The writers prepare a statement for each order of columns."""
        data = {"default": "y", "inner": {"number": "yes"}, "given": "a"}

        assert list(Loader(Plain()).load(data)) == ["stored", "listed", "inner", "default"]
        assert load(Plain(), data) == load_by_marshmallow(Plain(), data)

    @pytest.mark.parametrize(
        ("schema", "data"),
        [
            (Plain(partial=True), {"inner": {}}),  # `partial` concerns what is nested, too
            (Plain(partial=["inner.number"]), {"inner": {}}),
            (Plain(unknown=ma.RAISE), {"unknown": 1}),
            (Plain(unknown=ma.INCLUDE), {"unknown": 1}),
            (Plain(many=True), [{}]),
            (Plain(), [("given", "a")]),
            (Plain.from_dict({"dotted": ma.fields.Raw(attribute="a.b")})(), {"dotted": 1}),
        ],
    )
    def test_what_only_marshmallow_loads(self, schema: ma.Schema, data: Any) -> None:
        assert marshmallow_loads(schema, data)
        assert load(schema, data) == load_by_marshmallow(schema, data)

    @pytest.mark.parametrize(
        "hook",
        [
            ma.pre_load(lambda _self, data, **_: {**data, "given": "hooked"}),
            ma.validates("renamed")(lambda _self, _value, **_: None),
            ma.validates_schema(lambda _self, _data, **_: None),
            ma.post_load(pass_collection=True)(lambda _self, data, **_: data),
            ma.post_load(pass_original=True)(lambda _self, data, _original, **_: data),
        ],
        ids=["pre_load", "validates", "validates_schema", "pass_collection", "pass_original"],
    )
    def test_hooks_that_only_marshmallow_calls(self, hook: Any) -> None:
        assert marshmallow_loads(type("Hooked", (Plain,), {"hook": hook})(), {"given": "a"})

    def test_a_hook_after_loading(self) -> None:
        hook = ma.post_load(
            lambda _self, data, *, many, partial, unknown: {**data, "options": (many, partial, unknown)}
        )

        class Hooked(Plain):
            after = hook

        assert not marshmallow_loads(Hooked(), {})
        assert load(Hooked(), {}) == load_by_marshmallow(Hooked(), {})

    def test_options_of_a_call(self) -> None:
        with pytest.raises(ma.ValidationError):
            Plain().load({"unknown": 1}, unknown=ma.RAISE)
        assert Plain().load([{}], many=True) == [Plain().load({})]
        assert Plain().load({}, partial=True) == {}
