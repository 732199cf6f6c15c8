"""The JSON Schema of a condition, from its tests."""

from __future__ import annotations

from typing import Any

from ctms.contacts.registry import LISTS
from ctms.search import conditions
from ctms.search.conditions import FLAG, TESTS, TEXTS, TIME

CONDITION = "Condition"

_TEXT: dict[str, Any] = {"type": "string", "minLength": 1}


def _one_or_more(words: str) -> dict[str, Any]:
    values = {"type": "array", "minItems": 1, "maxItems": conditions.MAX_VALUES, "items": _TEXT}
    return {"description": words, "anyOf": [_TEXT, values]}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_TIME = {
    "description": "Time of a contact; all members must apply.",
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        **{
            name: {"type": "string", "description": f"{words} Date or time in ISO 8601, UTC unless it has an offset."}
            for name, words in {"before": "Earlier than this.", "since": "Not earlier than this."}.items()
        },
        **{
            name: {"type": "string", "pattern": "^[0-9]{1,7}[hdy]$", "description": f"{words} Hours, days or years."}
            for name, words in {"older_than": "Longer ago, as in `90d`.", "newer_than": "Not longer ago."}.items()
        },
    },
}


def _entry(name: str) -> dict[str, Any]:
    """Return the schema of a test for an entry of a list."""
    states = [conditions.SUBSCRIBED, conditions.UNSUBSCRIBED, conditions.ANY]
    fields = {
        "type": "object",
        "minProperties": 1,
        "description": "The value of each field, or a list of values.",
        "additionalProperties": True,
    }
    return {
        "description": f"Entry of `{name}`; all members must apply.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            "name": _one_or_more("A name, or one of several."),
            "state": {"type": "string", "enum": states, "description": "Default: `subscribed`."},
            "source": {**_TEXT, "description": "Beginning of the source."},
            **({"fields": fields} if "fields" in LISTS[name].columns else {}),
        },
    }


def _schema_name(kind: str) -> str:
    return f"{CONDITION}{kind.title().removesuffix('s')}"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schemas, by name: that of a condition, and those that it refers to."""
    by_kind = {
        FLAG: {"type": "boolean"},
        TEXTS: _one_or_more("A value, or one of several, in upper or lower case."),
        TIME: _reference(_schema_name(TIME)),
        **{
            name: {
                "anyOf": [
                    *_one_or_more("")["anyOf"],
                    _reference(_schema_name(name)),
                ],
                "description": "A name, one of several, or an entry.",
            }
            for name in LISTS
        },
    }
    several = {"type": "array", "minItems": 1, "items": _reference(CONDITION)}
    condition = {
        "description": "Tests of a contact, all of which must be true: see the reference of conditions.",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": False,
        "properties": {
            **{name: dict(by_kind[test.kind]) for name, test in TESTS.items()},
            "and": {**several, "description": "All of these."},
            "or": {**several, "description": "At least one of these."},
            "not": _reference(CONDITION),
        },
    }
    return {
        CONDITION: condition,
        _schema_name(TIME): _TIME,
        **{_schema_name(name): _entry(name) for name in LISTS},
    }
