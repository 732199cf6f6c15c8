"""The sub-documents of a contact in responses: whatever the columns can hold, as the database renders it.

Their schemas come from the tables, those of requests from the rules for new values. A client may send what it has read:
the types in requests cover those in responses, and further rules for new values restrict the values, not the types.
"""

from __future__ import annotations

import re
from typing import Any

import marshmallow as ma
from sqlalchemy import JSON, Boolean, Column, Date, DateTime, String, Uuid
from sqlalchemy.types import TypeEngine

from ctms.contacts.documents import null_default
from ctms.contacts.parts import Part
from ctms.contacts.registry import NEWSLETTERS, PARTS, SUB_DOCUMENTS

ROWS: dict[type[ma.Schema], Part] = {part.schema: part for part in PARTS.values()}
"""The part of a contact whose sub-document or entry each schema describes."""

# Its name in clients that are generated from the document, whatever the class of the model is called.
_NAMES: dict[type[ma.Schema], str] = {NEWSLETTERS.schema: "Newsletter"}

_KINDS: tuple[tuple[type[TypeEngine[Any]], dict[str, Any]], ...] = (
    (String, {"type": "string"}),
    (Boolean, {"type": "boolean"}),
    (Uuid, {"type": "string", "format": "uuid"}),
    (DateTime, {"type": "string", "format": "date-time"}),
    (Date, {"type": "string", "format": "date"}),
    (JSON, {"type": "object", "additionalProperties": True}),
)


def row_name(schema: type[ma.Schema]) -> str:
    """Return the name of the sub-document or entry in the OpenAPI document."""
    return _NAMES.get(schema, ROWS[schema].model.__name__)


def row_schema(schema: type[ma.Schema]) -> dict[str, Any]:
    """Return the JSON Schema of the sub-document or entry, with every member that `schema` lists."""
    part = ROWS[schema]
    properties = {
        field.data_key or name: _member(field, part.table.columns[name], part.name in SUB_DOCUMENTS)
        for name, field in part.fields.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def sparse_schema(schema: type[ma.Schema]) -> dict[str, Any]:
    """Return the JSON Schema of the sub-document or entry with some members: always its id, or its name."""
    part = ROWS[schema]
    described = row_schema(schema)
    always = [name for name in ("email_id", "name") if name in described["properties"]]
    return {**described, "required": always} if part.required or part.many else described | {"required": []}


def is_stored(field: ma.fields.Field[Any]) -> bool:
    """Return whether a response holds the field as its column holds it."""
    return not ROWS.keys().isdisjoint(type(field.parent).__mro__)


def describe_choices(enum: list[str | None]) -> dict[str, Any]:
    """Return the JSON Schema of one of the choices, with a type that covers any text, which a response may hold."""
    choices = [choice for choice in enum if choice is not None]
    named = [f"`{choice}`" if choice else "the empty text" for choice in choices]
    return {
        "pattern": f"^({'|'.join(map(re.escape, choices))})$",
        "description": f"{', '.join(named[:-1])} or {named[-1]}.",
    }


def _member(field: ma.fields.Field[Any], column: Column[Any], may_miss: bool) -> dict[str, Any]:
    member = next(dict(schema) for kind, schema in _KINDS if isinstance(column.type, kind))
    if length := getattr(column.type, "length", None):
        member["maxLength"] = length
    if null_default(field) is None and (column.nullable or may_miss):
        member["type"] = [member["type"], "null"]
    return member
