"""Readers that parse the text of an environment variable into the annotated type of a setting.

The readers are methods of `environs`; this module selects one by the annotation.
"""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import types
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import marshmallow as ma


@dataclass(frozen=True)
class Reader:
    """A method of `environs` with its options, the error text for other input, and a conversion of its result."""

    method: str
    expected: str
    options: Mapping[str, Any] = field(default_factory=dict)
    convert: Callable[[Any], Any] | None = None


SCALARS: Mapping[type, tuple[str, str]] = {
    str: ("str", "must be text"),
    int: ("int", "must be a whole number"),
    float: ("float", "must be a number"),
    decimal.Decimal: ("decimal", "must be a number"),
    bool: ("bool", "must be true or false"),
    dt.timedelta: ("timedelta", "must be a duration, as in 90s, 15m or 1h 30m"),
    dt.date: ("date", "must be a date, as in 2026-01-31"),
    dt.time: ("time", "must be a time of day, as in 23:59"),
    dt.datetime: ("datetime", "must be a date with a time, as in 2026-01-31T23:59:00+00:00"),
    uuid.UUID: ("uuid", "must be a UUID"),
    Path: ("path", "must be a path"),
}
"""The method of `environs` for each type, and the error text for other input."""

_LISTS: Mapping[Any, Callable[[Any], Any]] = {list: list, Sequence: tuple, tuple: tuple, set: set, frozenset: frozenset}
_BY_METHOD = dict(SCALARS.values())


def reader_by_name(method: str, annotation: Any = None) -> Reader:
    """Return the reader for a method of `environs`. The annotation gives the type of a list's entries."""
    if method == "list" and annotation is not None and _is_list(_unwrapped(annotation)):
        return reader_for(annotation)
    return Reader(method, _BY_METHOD.get(method, f"cannot be read as {method}"))


def reader_for(annotation: Any) -> Reader:
    """Return the reader for the annotated type. Raises `TypeError` when a variable cannot hold its values."""
    wanted = _unwrapped(annotation)
    if wanted in SCALARS:
        return Reader(*SCALARS[wanted])
    choices = _choices(wanted)
    if choices:
        return Reader("str", _one_of(choices), convert=_chooser(choices))
    if _is_list(wanted):
        return _reader_of_list(wanted)
    raise TypeError(f"no variable can hold a value of the type {_shown(annotation)}")


def serialize(value: Any) -> Any:
    """Return the value for JSON: one that JSON cannot hold becomes the text that a variable would have."""
    if isinstance(value, enum.Enum):
        return next(text for text, member in _choices(type(value)).items() if member is value)
    if isinstance(value, set | frozenset):
        return sorted(map(serialize, value))
    if isinstance(value, list | tuple):
        return type(value)(map(serialize, value)) if type(value) in {list, tuple} else list(map(serialize, value))
    return value if value is None or isinstance(value, str | bool | int | float | dict) else str(value)


def _unwrapped(annotation: Any) -> Any:
    """Return the type inside `X | None`, `NewType` and, since Python 3.12, `type X = …`."""
    if get_origin(annotation) in {Union, types.UnionType}:
        others = [one for one in get_args(annotation) if one is not type(None)]
        return _unwrapped(others[0]) if len(others) == 1 else annotation
    behind = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
    return annotation if behind is None or isinstance(annotation, enum.EnumType) else _unwrapped(behind)


def _choices(wanted: Any) -> dict[str, Any]:
    """Return the choices of an enum or a `Literal` by their text: values if all are text, else names of members."""
    if get_origin(wanted) is Literal:
        return {str(value): value for value in get_args(wanted)}
    if not isinstance(wanted, enum.EnumType):
        return {}
    members: list[enum.Enum] = list(wanted)
    by_value = all(isinstance(member.value, str) for member in members)
    return {member.value if by_value else member.name: member for member in members}


def _one_of(choices: Mapping[str, Any]) -> str:
    return f"must be one of {', '.join(choices)}"


def _chooser(choices: Mapping[str, Any]) -> Callable[[str], Any]:
    def choose(text: str) -> Any:
        if text.strip() not in choices:
            raise ma.ValidationError(_one_of(choices))
        return choices[text.strip()]

    return choose


def _is_list(wanted: Any) -> bool:
    if get_origin(wanted) is tuple and get_args(wanted)[1:] != (Ellipsis,):
        return False  # of a fixed length
    return (get_origin(wanted) or wanted) in _LISTS


def _reader_of_list(wanted: Any) -> Reader:
    collect = _LISTS[get_origin(wanted) or wanted]
    inner = _unwrapped((get_args(wanted) or (str,))[0])
    choices = _choices(inner)
    subcast: Any
    if choices:
        subcast, expected = _chooser(choices), _one_of(choices)
    elif inner in SCALARS and inner is not dt.timedelta:  # in lists `environs` reads seconds only
        subcast, expected = str.strip if inner is str else inner, SCALARS[inner][1]
    else:
        raise TypeError(f"no variable can hold a value of the type {_shown(wanted)}")

    def gather(values: Sequence[Any]) -> Any:
        return collect(value for value in values if value != "")

    return Reader("list", f"has entries, separated by commas, of which each {expected}", {"subcast": subcast}, gather)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
