"""Trial runs of waitlist rules when the service starts: whether all their results are JSON.

A value that JSON does not have would otherwise fail each request with the field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, TypeVar

import marshmallow as ma

from ctms.hooks.registrations import NotJson, Waitlist, not_json
from ctms.threads import start_in_thread

T = TypeVar("T")

MAX_SECONDS = 5.0
"""Limit on the trial of one waitlist's rules when the service starts."""

_SAMPLES: tuple[Any, ...] = (
    *("1", 1, 1.5, True, "text", [], {}),
    *("2026-01-31", "12:30:00", "2026-01-31T12:30:00", "2026-01-31T12:30:00+00:00"),
    *("https://example.com/", "jane@example.com", "192.0.2.1", "2001:db8::1", "192.0.2.0/24", "2001:db8::/64"),
    "93db83d4-4119-4e0c-af87-a713786fa81d",
)


def bounded(function: Callable[[], T]) -> T:
    """Return the function's result. Raises its exceptions, and `TimeoutError` if it takes too long.

    The function runs in a thread that continues after the timeout.
    """
    try:
        return start_in_thread(function, "ctms-rules").result(MAX_SECONDS)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {MAX_SECONDS:g} seconds") from error


def find_unstorable(waitlist: Waitlist) -> str | None:
    """Return the value, and its field, that rules return and JSON does not have, or None if none was found.

    Tries each field of the schema with a sample of each type, then the rules as a whole without fields and with those
    that the schema accepts. Other problems of the rules are found by requests and the contract suite.
    """
    loader = waitlist.loader
    fields = dict(loader.load_fields) if loader else {}
    for name, field in fields.items():
        kind = next((kind for kind in map(not_json, _dumped(field)) if kind is not None), None)
        if kind is not None:
            return f"the field {field.data_key or name} makes a {kind}, which JSON does not have"
    accepted = {field.data_key or name: sample for name, field in fields.items() for sample in _accepted(field)[:1]}
    for example in ({}, accepted):
        try:
            waitlist.load(example)
        except NotJson as error:
            return str(error)
        except Exception:  # noqa: BLE001, S110  refused, or a fault that a request shows
            pass
    return None


def _dumped(field: ma.fields.Field[Any], above: frozenset[type] = frozenset()) -> Iterator[Any]:
    """Yield what the field dumps of values that it loads, without its validators, and of nested fields.

    A schema that contains itself, which `above` has, is not entered again.
    """
    if field.load_only:
        return
    for inner, entered in _inner(field, above):
        yield from _dumped(inner, entered)
    if isinstance(field, ma.fields.Nested):
        return
    lax = copy(field)
    lax.validators = []
    for value in (*_loaded(lax), *_default(field)):
        try:
            yield lax.serialize("value", {"value": value})
        except Exception:  # noqa: BLE001, S112  a field of the plugin's own that does not take the sample
            continue


def _inner(
    field: ma.fields.Field[Any], above: frozenset[type]
) -> Iterator[tuple[ma.fields.Field[Any], frozenset[type]]]:
    """Yield the fields within a field, with their schemas."""
    found = [getattr(field, "inner", None), getattr(field, "value_field", None), *getattr(field, "tuple_fields", ())]
    yield from ((inner, above) for inner in found if isinstance(inner, ma.fields.Field))
    if isinstance(field, ma.fields.Nested):
        try:
            schema = field.schema
        except Exception:  # noqa: BLE001  one that does not exist: its description prevents the start
            return
        if type(schema) not in above:
            yield from ((inner, above | {type(schema)}) for inner in schema.load_fields.values())


def _loaded(field: ma.fields.Field[Any]) -> Iterator[Any]:
    for sample in _samples(field):
        try:
            yield field.deserialize(sample)
        except Exception:  # noqa: BLE001, S112  it is not for this kind of field
            continue


def _samples(field: ma.fields.Field[Any]) -> Iterator[Any]:
    enum = getattr(field, "enum", None)
    for member in enum or ():
        yield from (member.name, member.value)
    yield from _SAMPLES


def _default(field: ma.fields.Field[Any]) -> Iterator[Any]:
    default = field.load_default
    if default is not ma.missing:
        yield default() if callable(default) else default


def _accepted(field: ma.fields.Field[Any]) -> list[Any]:
    found = []
    for sample in _samples(field):
        try:
            field.deserialize(sample)
        except Exception:  # noqa: BLE001, S112  it is not for this kind of field
            continue
        found.append(sample)
    return found
