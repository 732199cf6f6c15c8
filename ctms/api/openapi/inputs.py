"""From marshmallow to JSON Schema: our kinds of field, and the two directions.

What a request may hold is as its schema reads it. What an answer holds is always all there, and the groups of a
contact in it are as the tables can hold them (`rows`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch
from typing import Any

import marshmallow as ma
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from apispec.ext.marshmallow.schema_resolver import SchemaResolver

from ctms.api.openapi.rows import ROWS, row_name, row_schema, widen_to_answers
from ctms.api.parameters import Cursor, Instant, Limit
from ctms.contacts import fields
from ctms.contacts.schemas import ContactSchema

DEFAULT = "Default: `{}`."
"""The sentence that names the default of a member of a request."""

_ACTIONS = {
    "DELETE": "`DELETE` resets the group to its defaults.",
    "UNSUBSCRIBE": "`UNSUBSCRIBE` unsubscribes from all.",
}


@singledispatch
def kind(_field: ma.fields.Field[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a field of ours, but for its being nullable; empty for marshmallow's own."""
    return {}


@kind.register
def _(field: fields.PlainText) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if field.longest is not None:
        schema["maxLength"] = field.longest
    if field.shortest:
        schema["minLength"] = field.shortest
    if field.choices is not None:
        schema["enum"] = list(field.choices)
    return schema


@kind.register
def _(_field: fields.AbsoluteUrl) -> dict[str, Any]:
    return {
        "type": "string",
        "format": "uri",
        "description": "An absolute URL, stored in its normal form: `http://Example.com` becomes `http://example.com/`.",
    }


@kind.register
def _(field: fields.Address) -> dict[str, Any]:
    description = (
        "An e-mail address, internationalised ones too (RFC 6531); no two contacts share one, in any spelling."
    )
    if field.keep_odd:
        description += " What is no address may be given again where it is stored already."
    return {"type": "string", "format": "idn-email", "maxLength": field.longest, "description": description}


@kind.register
def _(_field: fields.Flag) -> dict[str, Any]:
    return {"type": "boolean"}


@kind.register
def _(field: fields.Uuid) -> dict[str, Any]:
    schema = {"type": "string", "format": "uuid"}
    return {**schema, "description": f"A UUID of version {field.version}."} if field.version else schema


@kind.register
def _(_field: fields.Day) -> dict[str, Any]:
    return {"type": "string", "format": "date"}


@kind.register
def _(_field: fields.Object) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": True,
        "description": "What it may hold depends on the name of the waitlist: see the schemas `Fields.…`, or ask"
        f" `GET /waitlists`. It nests at most {fields.MAX_DEPTH} levels.",
    }


@kind.register
def _(_field: fields.Timestamp) -> dict[str, Any]:
    return {"type": "string", "format": "date-time"}


@kind.register
def _(_field: Instant) -> dict[str, Any]:
    return {"type": "string", "format": "date-time", "description": "Without an offset it is UTC."}


@kind.register
def _(_field: Limit) -> dict[str, Any]:
    return {"type": "integer", "minimum": Limit.lowest, "maximum": Limit.highest}


@kind.register
def _(_field: Cursor) -> dict[str, Any]:
    return {"type": "string", "description": "The `after` of the page before."}


class Converter(OpenAPIConverter):
    """apispec's converter, which also knows whether it describes a request or an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answering = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Describe what is answered, for a while."""
        before, self._answering = self._answering, True
        try:
            yield
        finally:
            self._answering = before

    def init_attribute_functions(self) -> None:
        """Add what describes our own kinds of field."""
        super().init_attribute_functions()  # type: ignore[no-untyped-call]
        self.attribute_functions += [self.field2kind, self.field2free, self.field2actions]

    def resolve_nested_schema(self, schema: Any) -> Any:
        """Refer to the schema; in an answer, to the row if it is one."""
        cls = schema if isinstance(schema, type) else type(schema)
        if not self._answering or cls not in ROWS:
            return super().resolve_nested_schema(schema)  # type: ignore[no-untyped-call]
        name = row_name(cls)
        if name not in self.spec.components.schemas:
            self.spec.components.schema(name, {"description": inspect.getdoc(cls), **row_schema(cls)})
        return {"$ref": f"#/components/schemas/{name}"}

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        """Describe a schema in the words of its docstring. In an answer all its members are there.

        The description names the default of a member: generators of TypeScript types require a member that has a
        `default`.
        """
        converted: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        cls = schema if isinstance(schema, type) else type(schema)
        for member in converted["properties"].values():
            default = member.pop("default", None)
            if default is not None and not self._answering:
                words = f"{member.get('description', '')} {DEFAULT.format(json.dumps(default))}"
                member["description"] = words.lstrip()
        if self._answering:
            converted["required"] = list(converted["properties"])
        return {"description": inspect.getdoc(cls), **converted}

    def schema2parameters(self, schema: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Describe parameters: each is there or not, but never null."""
        parameters: list[dict[str, Any]] = super().schema2parameters(schema, **kwargs)
        for parameter in parameters:
            described = parameter["schema"]
            if isinstance(described.get("type"), list):
                described["type"] = described["type"][0]
            if described.get("default", ...) is None:
                del described["default"]
        return parameters

    def field2default(self, field: ma.fields.Field[Any], **_: Any) -> dict[str, Any]:
        """Name the value that stands for a member that is not given; where nothing does, nothing."""
        partial = getattr(field.parent, "partial", None)
        if field.load_default is ma.missing or partial is True or (partial and field.name in partial):
            return {}
        default = field.load_default() if callable(field.load_default) else field.load_default
        return {} if default is None and not field.allow_none else {"default": default}

    def field2kind(self, field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Describe a field of ours."""
        schema = kind(field)
        if schema and field.allow_none:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"].append(None)
        return widen_to_answers(field, schema) if schema and not self._answering else schema

    def field2free(self, _field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Say of an object that may have any members that it may."""
        return {"additionalProperties": True} if ret.get("additionalProperties") == {} else {}

    def field2actions(self, field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Describe how many entries a list may have, and which words may stand for a group or list."""
        if isinstance(field, fields.Subscriptions) and not self._answering:
            ret["maxItems"] = fields.MAX_ENTRIES
            ret["description"] = "Each name once."
        actions = getattr(field, "actions", ())
        if not actions:
            return {}
        value = {key: ret.pop(key) for key in list(ret)}
        words = [{"type": "string", "const": word, "description": _ACTIONS[word]} for word in actions]
        return {"anyOf": [value, *words]}


class Resolver(SchemaResolver):
    """apispec's resolver, which tells the converter when it is at an answer."""

    def resolve_response(self, response: Any) -> None:
        """Describe the schemas of an answer."""
        with self.converter.answering():
            super().resolve_response(response)  # type: ignore[no-untyped-call]


class Marshmallow(MarshmallowPlugin):
    """apispec's plugin with our converter and our names."""

    Converter = Converter
    Resolver = Resolver

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=schema_name)


def schema_name(schema: ma.Schema | type[ma.Schema]) -> str:
    """Name a schema in the document.

    The plain names (`Contact`, `Email`) are those of what is answered. What is sent is an `…Input`, a `…Put`, or,
    where only what is to change is given, a `…Patch`.
    """
    cls = schema if isinstance(schema, type) else type(schema)
    name = cls.__name__.removesuffix("Schema").removesuffix("Document")
    if isinstance(schema, ma.Schema) and schema.partial:
        return f"{name.removesuffix('Patch')}Patch"
    return f"{name}Input" if cls in {ContactSchema, *ROWS} else name
