"""A contact with a value of its own in every column, derived from the models: a new column is covered at once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import JSON, Boolean, Column, Date, DateTime, String

from ctms.contacts.parts import Part
from ctms.contacts.registry import PARTS
from tests.contacts.rows import insert

Marked = dict[str, Any]

_FIRST_DAY = date(1990, 1, 1)


def insert_marked(address: str) -> Marked:
    """Insert the contact with this address; return its values by part and column, those of a list in the first entry.

    Columns that the database fills are left out.
    """
    numbers = count(1)
    email_id = str(uuid.uuid4())
    marked: Marked = {}
    for name, part in PARTS.items():
        values = _values(part, numbers)
        values |= {"email_id": email_id, **({"primary_email": address} if part.required else {})}
        insert(part.table.name, **{k: json.dumps(v) if isinstance(v, dict) else v for k, v in values.items()})
        marked[name] = {k: _as_json(v) for k, v in values.items()}
    return marked


def texts(marked: Marked) -> list[str]:
    """Return all values that are text."""
    return [value for part in marked.values() for value in part.values() if isinstance(value, str)]


def _values(part: Part, numbers: Iterator[int]) -> dict[str, Any]:
    return {
        column.name: _value(column, next(numbers))
        for column in part.table.columns
        if column.name not in {"id", "email_id"}
    }


def _value(column: Column[Any], number: int) -> Any:
    if isinstance(column.type, Boolean):
        return True
    if isinstance(column.type, DateTime):
        return f"{_FIRST_DAY + timedelta(number)}T01:02:03.000004+00:00"
    if isinstance(column.type, Date):
        return str(_FIRST_DAY + timedelta(number))
    if isinstance(column.type, JSON):
        return {"geo": f"mark-{number}", "deep": {"list": [f"mark-{number}-a", {"b": f"mark-{number}-c"}]}}
    assert isinstance(column.type, String), f"say how {column} is marked"
    long = f"mark-{column.table.name}-{column.name}"
    length = column.type.length or len(long)
    return long if len(long) <= length else f"m{number:03}z" if length >= 5 else chr(0x4E00 + number)


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value
