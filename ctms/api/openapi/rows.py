"""The groups of a contact as they are answered: whatever the columns can hold, however odd, as the database renders it.

So these shapes come from the tables, where those of requests come from the rules that new values obey. But what was
read may be sent: the types in requests cover those in answers, and what else new values obey is said of the values.
"""

from __future__ import annotations

import re
from typing import Any, cast

import marshmallow as ma
from sqlalchemy import JSON, Boolean, Column, Date, DateTime, String, Table, Uuid
from sqlalchemy.types import TypeEngine

from ctms.contacts import models, schemas
from ctms.contacts.documents import null_default
from ctms.database import Model

ROWS: dict[type[ma.Schema], tuple[type[Model], bool]] = {
    schemas.EmailSchema: (models.Email, False),
    schemas.AmoSchema: (models.Amo, True),
    schemas.FxaSchema: (models.Fxa, True),
    schemas.MofoSchema: (models.Mofo, True),
    schemas.NewsletterSchema: (models.Newsletter, False),
    schemas.WaitlistSchema: (models.Waitlist, False),
}
"""The table of each group or entry, and whether its row may be missing: then its members are null or false."""

_KINDS: tuple[tuple[type[TypeEngine[Any]], dict[str, Any]], ...] = (
    (String, {"type": "string"}),
    (Boolean, {"type": "boolean"}),
    (Uuid, {"type": "string", "format": "uuid"}),
    (DateTime, {"type": "string", "format": "date-time"}),
    (Date, {"type": "string", "format": "date"}),
    (JSON, {"type": "object", "additionalProperties": True}),
)


def row_name(schema: type[ma.Schema]) -> str:
    """Return the name of the group or entry in the document."""
    return ROWS[schema][0].__name__


def row_schema(schema: type[ma.Schema]) -> dict[str, Any]:
    """Return the JSON Schema of the group or entry, with every member that `schema` lists."""
    model, may_miss = ROWS[schema]
    columns = cast(Table, model.__table__).columns
    properties = {
        field.data_key or name: _member(field, columns[field.attribute or name], may_miss)
        for name, field in schema().fields.items()
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def widen_to_answers(field: ma.fields.Field[Any], described: dict[str, Any]) -> dict[str, Any]:
    """Return the schema `described` of a member of requests, with a type that covers the member in answers.

    Answers hold any text where requests hold one of a few words: a pattern takes the place of the enumeration.
    """
    if "enum" not in described or ROWS.keys().isdisjoint(type(field.parent).__mro__):
        return described
    words = [word for word in described["enum"] if word is not None]
    named = [f"`{word}`" if word else "the empty text" for word in words]
    return {
        **{key: value for key, value in described.items() if key != "enum"},
        "pattern": f"^({'|'.join(map(re.escape, words))})$",
        "description": f"{', '.join(named[:-1])} or {named[-1]}.",
    }


def _member(field: ma.fields.Field[Any], column: Column[Any], may_miss: bool) -> dict[str, Any]:
    member = next(dict(schema) for kind, schema in _KINDS if isinstance(column.type, kind))
    if length := getattr(column.type, "length", None):
        member["maxLength"] = length
    if null_default(field) is None and (column.nullable or may_miss):
        member["type"] = [member["type"], "null"]
    return member
