"""The sub-documents of a contact in responses: whatever the columns can hold, as the database renders it.

Their schemas come from the tables, those of requests from the rules for new values. A client may send what it has read:
the types in requests cover those in responses, and further rules for new values restrict the values, not the types.
"""

from __future__ import annotations

import re
from typing import Any, cast

import marshmallow as ma
from sqlalchemy import JSON, Boolean, Column, Date, DateTime, String, Table, Uuid
from sqlalchemy.types import TypeEngine

from ctms.contacts import models, schemas
from ctms.contacts.documents import null_default
from ctms.database.engine import Model

ROWS: dict[type[ma.Schema], tuple[type[Model], bool]] = {
    schemas.EmailSchema: (models.Email, False),
    schemas.AmoSchema: (models.Amo, True),
    schemas.FxaSchema: (models.Fxa, True),
    schemas.MofoSchema: (models.Mofo, True),
    schemas.NewsletterSchema: (models.Newsletter, False),
    schemas.WaitlistSchema: (models.WaitlistEntry, False),
}
"""The table of each sub-document or entry, and whether its row may be missing: then its members are null or false."""

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
    return ROWS[schema][0].__name__


def row_schema(schema: type[ma.Schema]) -> dict[str, Any]:
    """Return the JSON Schema of the sub-document or entry, with every member that `schema` lists."""
    model, may_miss = ROWS[schema]
    columns = cast(Table, model.__table__).columns
    properties = {
        field.data_key or name: _member(field, columns[field.attribute or name], may_miss)
        for name, field in schema().fields.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


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
