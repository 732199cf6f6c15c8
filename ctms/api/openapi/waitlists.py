"""JSON Schemas of the fields of waitlists, for `GET /waitlists` and the OpenAPI document.

Plugins define the rules; their schemas are validated here, when the service starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

import jsonschema_rs
import marshmallow as ma
from apispec import APISpec
from apispec.core import Components
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import get_fields
from apispec.ext.marshmallow.openapi import OpenAPIConverter

from ctms.contacts.waitlist_rules import WaitlistRegistry
from ctms.errors import PluginError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Waitlist
from ctms.hooks.trials import bounded

Schema = dict[str, Any]

SCHEMA_BY_NAME = "x-schema-by-name"
"""Extension that maps the name of a waitlist, or a pattern of names, to the schema of its fields."""

_COMPONENT = "Fields."

# Keywords of JSON Schema 2020-12 that contain schemas; any other object is a value, even if it looks like one.
_MAPS_OF_SCHEMAS = frozenset({"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"})
_LISTS_OF_SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMAS = frozenset(
    {"additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_DESCRIBING_MEMBERS = frozenset(
    {"additionalProperties", "patternProperties", "properties", "unevaluatedProperties", "$ref", *_LISTS_OF_SCHEMAS}
)


class _Converter(OpenAPIConverter):
    """apispec's converter, for schemas that load data."""

    def schema2jsonschema(self, schema: ma.Schema) -> Schema:
        """Describe the members that the schema loads, without dump-only fields, and its handling of unknown members."""
        fields = get_fields(schema, exclude_dump_only=True)
        described: Schema = self.fields2jsonschema(fields, partial=schema.partial)  # type: ignore[no-untyped-call]
        described["additionalProperties"] = schema.unknown != ma.RAISE
        words = vars(type(schema)).get("__doc__")
        return {"description": " ".join(words.split()), **described} if words else described

    def field2pattern(self, field: ma.fields.Field[Any], **_: Any) -> Schema:
        """Return the pattern of a field if JSON Schema can express it: Python has flags and syntax of its own."""
        found: Schema = super().field2pattern(field)
        flags = any(v.regex.flags & ~re.UNICODE for v in field.validators if isinstance(v, ma.validate.Regexp))
        if flags or not found:
            return {}
        anchored = {"pattern": f"^(?:{found['pattern']})"}  # marshmallow matches from the prefix
        try:
            jsonschema_rs.Draft202012Validator(anchored, offline=True)
        except jsonschema_rs.ValidationError:
            return {}
        return anchored


class _Marshmallow(MarshmallowPlugin):
    """apispec's plugin with our converter; nested schemas are inlined."""

    Converter = _Converter

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=lambda _schema: "")


def fields_schema(registered: Registered[Waitlist]) -> Schema:
    """Return the JSON Schema (2020-12) of a waitlist's fields, as given by its plugin or derived from its schema.

    Raises `PluginError`, which names the plugin and the fix, if there is none.
    """
    waitlist = registered.value
    try:
        given = waitlist.json_schema
        described = bounded(lambda: _from_marshmallow(waitlist)) if given is None else dict(given)
        json.dumps(described, allow_nan=False)
        jsonschema_rs.Draft202012Validator(described, offline=True)
    except (Exception, SystemExit) as error:
        reason = (
            error.message if isinstance(error, jsonschema_rs.ValidationError) else f"{type(error).__name__}: {error}"
        )
        raise PluginError(
            f"{registered.plugin.title}: ctms_waitlists yields the waitlist {waitlist.name!r}, whose fields have no"
            f" JSON Schema ({reason}): give a json_schema that is one, without references to elsewhere",
            registered.plugin.name,
        ) from error
    return described


def _from_marshmallow(waitlist: Waitlist) -> Schema:
    if waitlist.schema is None:
        return {"type": "object"}
    schema = waitlist.schema() if isinstance(waitlist.schema, type) else waitlist.schema
    plugin = _Marshmallow()
    APISpec(title="", version="", openapi_version="3.1.0", plugins=[plugin])
    assert plugin.converter is not None  # noqa: S101  `APISpec` has just made it
    described: Schema = plugin.converter.schema2jsonschema(schema)  # type: ignore[no-untyped-call]
    return {**described, "additionalProperties": waitlist.unknown != "refuse"}


def list_of(waitlists: WaitlistRegistry) -> list[Schema]:
    """Return the response of `GET /waitlists`, by precedence. Raises `PluginError` as `fields_schema` does."""
    return [
        {
            "name": one.value.name,
            "title": one.value.title,
            "description": one.value.description,
            "plugin": one.plugin.name,
            "schema": fields_schema(one),
        }
        for one in waitlists.declared
    ]


def describe_entries(components: Components, waitlists: WaitlistRegistry) -> None:
    """Add a schema `Fields.…` for each declaration, and refer to it from the entries of requests.

    The reference is an extension of OpenAPI, similar to the mapping of a discriminator: client generators create one
    plain class for an entry. Raises `PluginError` as `fields_schema` does.
    """
    places: dict[str, str] = {}
    for one in waitlists.declared:
        name = _component_name(one.value.name, components.schemas)
        places[one.value.name] = f"#/components/schemas/{name}"
        described = _embedded(fields_schema(one), places[one.value.name])
        words = (
            f"{one.value.title}: fields of {_named(one.value)}.",
            one.value.description,
            described.get("description"),
        )
        components.schema(name, {**described, "description": " ".join(filter(None, words))})
    for entry in ("WaitlistInput", "WaitlistPatch"):
        components.schemas[entry]["properties"]["fields"][SCHEMA_BY_NAME] = dict(places)


def _named(waitlist: Waitlist) -> str:
    if waitlist.prefix is None:
        return f"waitlist `{waitlist.name}`"
    return f"waitlists with the prefix `{waitlist.prefix}`" if waitlist.prefix else "all other waitlists"


def _component_name(waitlist: str, taken: Iterable[str]) -> str:
    """Return a valid OpenAPI name that generators do not map to the class of another schema."""
    plain = _COMPONENT + re.sub(r"[^A-Za-z0-9._-]", "_", waitlist.replace("*", "any"))
    classes = {_class_name(name) for name in taken}
    tries = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
    return next(name for name in tries if _class_name(name) not in classes)


def _class_name(component: str) -> str:
    """Return the part of a name that is significant in generated class and file names, on any file system."""
    return re.sub(r"[^a-z0-9]", "", component.lower())


def _embedded(schema: Any, place: str) -> Any:
    """Return the schema for its place in the document.

    References into itself are adjusted to `place`. Titles are removed, since generators use them as class names.
    Objects without restrictions get `additionalProperties`.
    """
    if not isinstance(schema, Mapping):
        return schema
    embedded = {key: _embedded_value(key, value, place) for key, value in schema.items() if key != "title"}
    if embedded.get("type") == "object" and embedded.keys().isdisjoint(_DESCRIBING_MEMBERS):
        embedded["additionalProperties"] = True
    return embedded


def _embedded_value(keyword: str, value: Any, place: str) -> Any:
    if keyword == "$ref":
        return f"{place}{value[1:]}" if value.startswith("#") else value
    if keyword in _MAPS_OF_SCHEMAS:
        return {name: _embedded(schema, place) for name, schema in value.items()}
    if keyword in _LISTS_OF_SCHEMAS:
        return [_embedded(schema, place) for schema in value]
    return _embedded(value, place) if keyword in _SCHEMAS else value
