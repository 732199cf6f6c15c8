"""From marshmallow to JSON Schema: requests and responses.

apispec describes a request as its schema reads it. A response holds the members of its schema, and the sub-documents
of a contact in it are described by the columns of their tables (`rows`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import marshmallow as ma
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from apispec.ext.marshmallow.schema_resolver import SchemaResolver

from ctms.api.openapi.errors import PROBLEM
from ctms.api.openapi.rows import ROWS, describe_choices, is_stored, row_name, row_schema, sparse_schema
from ctms.contacts import fields
from ctms.contacts.problems import ProblemSchema
from ctms.contacts.schemas import ContactSchema

DEFAULT = "Default: `{}`."
"""Sentence that states the default of a member of a request."""

_ACTIONS = {
    "DELETE": "`DELETE` resets the group to its defaults.",
    "UNSUBSCRIBE": "`UNSUBSCRIBE` unsubscribes from all.",
}


class Converter(OpenAPIConverter):
    """apispec's converter, aware of whether it describes a request or a response."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answering = False

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Describe responses inside the block."""
        before, self._answering = self._answering, True
        try:
            yield
        finally:
            self._answering = before

    def init_attribute_functions(self) -> None:
        """Add the functions for what apispec does not describe as this API does."""
        super().init_attribute_functions()  # type: ignore[no-untyped-call]
        self.attribute_functions += [self.field2free, self.field2list, self.field2actions, self.field2component]

    def resolve_nested_schema(self, schema: Any) -> Any:
        """Return a reference to the schema, or in a response to its row if it has one."""
        cls = schema if isinstance(schema, type) else type(schema)
        if cls is ProblemSchema:
            return self.spec.components.get_ref("schema", PROBLEM)
        of = getattr(cls, "sparse_of", cls)
        if not self._answering or of not in ROWS:
            return super().resolve_nested_schema(schema)  # type: ignore[no-untyped-call]
        name, described = row_name(of), row_schema(of)
        if of is not cls:
            name, described = f"Sparse{name}", sparse_schema(of)
        if name not in self.spec.components.schemas:
            self.spec.components.schema(name, {"description": inspect.getdoc(cls), **described})
        return {"$ref": f"#/components/schemas/{name}"}

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        """Describe a schema by its docstring. A response holds all members but those in `Meta.optional`.

        The description of a member states its default: generators of TypeScript types require a member that has a
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
            optional = getattr(getattr(cls, "Meta", None), "optional", ())
            converted["required"] = [name for name in converted["properties"] if name not in optional]
        return {"description": inspect.getdoc(cls), **converted}

    def schema2parameters(self, schema: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """Describe parameters, each of which is present or absent, but never null."""
        parameters: list[dict[str, Any]] = super().schema2parameters(schema, **kwargs)
        for parameter in parameters:
            described = parameter["schema"]
            if isinstance(described.get("type"), list):
                described["type"] = described["type"][0]
            if described.get("default", ...) is None:
                del described["default"]
        return parameters

    def field2default(self, field: ma.fields.Field[Any], **_: Any) -> dict[str, Any]:
        """Return the value that an absent member gets, if it gets one."""
        partial = getattr(field.parent, "partial", None)
        if field.load_default is ma.missing or partial is True or (partial and field.name in partial):
            return {}
        default = field.load_default() if callable(field.load_default) else field.load_default
        return {} if default is None and not field.allow_none else {"default": default}

    def field2choices(self, field: ma.fields.Field[Any], **kwargs: Any) -> dict[str, Any]:
        """Describe the choices of a field, by a pattern in a request where a response may hold other text."""
        described: dict[str, Any] = super().field2choices(field, **kwargs)
        if not described or self._answering or not is_stored(field):
            return described
        return describe_choices(described["enum"])

    def field2free(self, _field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Return `additionalProperties` as generated clients read it: `true`, not `{}`."""
        return {"additionalProperties": True} if ret.get("additionalProperties") == {} else {}

    def field2list(self, field: ma.fields.Field[Any], **_: Any) -> dict[str, Any]:
        """Describe the limits of a list in a request."""
        if self._answering or not isinstance(field, fields.List):
            return {}
        unique = {"description": "Each name once."} if isinstance(field, fields.Subscriptions) else {}
        return {"maxItems": field.max_items, **unique}

    def field2actions(self, field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Describe the words that may replace a sub-document or list."""
        actions = getattr(field, "actions", ())
        if not actions:
            return {}
        value = {key: ret.pop(key) for key in list(ret)}
        words = [{"type": "string", "const": word, "description": _ACTIONS[word]} for word in actions]
        return {"anyOf": [value, *words]}

    def field2component(self, field: ma.fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
        """Refer to the schema of the document that a field names as its `component`."""
        component = getattr(field, "component", None)
        if component is None:
            return {}
        words = {name: ret[name] for name in ("description",) if name in ret}
        ret.clear()
        schema: dict[str, Any] = {"$ref": f"#/components/schemas/{component}"}
        return {**words, **({"anyOf": [schema, {"type": "null"}]} if field.allow_none else schema)}


class Resolver(SchemaResolver):
    """apispec's resolver, which switches the converter to responses while it resolves one."""

    def resolve_response(self, response: Any) -> None:
        """Describe the schemas of a response."""
        with self.converter.answering():
            super().resolve_response(response)  # type: ignore[no-untyped-call]


class Marshmallow(MarshmallowPlugin):
    """apispec's plugin with this API's converter and names of schemas."""

    Converter = Converter
    Resolver = Resolver

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=schema_name)


def schema_name(schema: ma.Schema | type[ma.Schema]) -> str:
    """Return the name of a schema in the document.

    Responses have the plain names (`Contact`, `Email`). Requests are an `…Input`, a `…Put` or, for a partial update,
    a `…Patch`.
    """
    cls = schema if isinstance(schema, type) else type(schema)
    name = cls.__name__.removesuffix("Schema").removesuffix("Document")
    if isinstance(schema, ma.Schema) and schema.partial:
        return f"{name.removesuffix('Patch')}Patch"
    return f"{name}Input" if cls in {ContactSchema, *ROWS} else name
