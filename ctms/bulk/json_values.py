"""Streaming parser that yields the values of JSON documents as they end, with bounded memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import ijson

from ctms.bulk.lines import MAX_LINE, NOT_TEXT, Lines
from ctms.errors import ListError

MAX_VALUE = 1 << 20
"""Characters of one value. Text in a member of an object is truncated to `MAX_LINE`."""

MAX_MEMBERS = 500
"""Members of an object that are read."""

MAX_DEPTH = 50
"""Levels of nested objects and arrays."""

SLICE = 4096
"""Characters that are parsed at once. Their events are held in memory, one for each bracket."""

ITEM = None
"""The step of a path from an array to any of its elements."""

JsonPath = tuple[str | None, ...]
Members = dict[str, Any]

_NOT_JSON = (ijson.JSONError, ValueError, ArithmeticError, SystemError)
"""The errors of the parser; the last two are for numbers with more digits than it supports."""

_HIGH, _LOW, _HEX = "[dD][89abAB][0-9a-fA-F]{2}", "[dD][c-fC-F][0-9a-fA-F]{2}", "[0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"""
    (?P<part> \\ (?: u{_HEX}{{0,3}} )? \Z | \\u{_HIGH} (?: \\ (?: u{_HEX}{{0,3}} )? )? \Z )
    | \\u{_HIGH}\\u{_LOW}
    | (?P<half> \\u (?: {_HIGH} | {_LOW} ) )
    | \\.
    """,
    re.VERBOSE | re.DOTALL,
)


class JsonValue(NamedTuple):
    """A completely read object, array element or document.

    `content` is text, a number, a boolean or None; for an object, it is the members that are not objects or arrays.
    """

    path: JsonPath
    line: int
    content: Any
    is_array: bool = False
    is_empty: bool = False


@dataclass
class _Open:
    """An object or array whose end has not been read yet."""

    path: JsonPath
    line: int
    members: Members | None
    name: str | None = ITEM
    is_empty: bool = True


class JsonValues:
    """The values of all documents of a stream. Raises `ListError` when the stream is not JSON."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._open: list[_Open] = []
        self.read = 0
        """The number of characters read so far."""

    def __iter__(self) -> Iterator[JsonValue]:
        parse = ijson.basic_parse_coro(events := ijson.sendable_list(), multiple_values=True)
        number = silent = 0
        try:
            for number, text in self._slices():
                parse.send(text.encode())
                self.read += len(text)
                silent = 0 if events else silent + len(text)
                if silent > MAX_VALUE:
                    raise ListError(f"line {number} has a value that is too long")
                yield from self._ended(number, events)
                events.clear()
            parse.close()
            yield from self._ended(number, events)  # a number ends where the stream does
        except _NOT_JSON:
            raise ListError(f"line {number} is not JSON, or the document does not end there") from None

    def open_objects(self) -> list[JsonValue]:
        """Return the objects whose end has not been read yet, with their members so far."""
        return [JsonValue(one.path, one.line, dict(one.members)) for one in self._open if one.members is not None]

    def _slices(self) -> Iterator[tuple[int, str]]:
        number, rest = 0, ""
        for number, piece in self._lines.chunks():
            for start in range(0, len(piece), SLICE):
                text, rest = replace_lone_surrogates(rest + piece[start : start + SLICE])
                yield number, text
        if rest:
            yield number, rest

    def _ended(self, number: int, events: Iterable[tuple[str, Any]]) -> Iterator[JsonValue]:
        for event, value in events:
            if (ended := self._take(number, event, value)) is not None:
                yield ended

    def _take(self, number: int, event: str, value: Any) -> JsonValue | None:
        """Process the parser's next event, and return the value that ends with it, unless it is a member."""
        parent = self._open[-1] if self._open else None
        if event == "map_key" and parent:
            parent.name, parent.is_empty = value, False
            return None
        if event in {"end_map", "end_array"}:
            ended = self._open.pop()
            return JsonValue(ended.path, ended.line, ended.members, event == "end_array", ended.is_empty)
        path = (*parent.path, parent.name) if parent else ()
        if parent:
            parent.is_empty = False
        if event in {"start_map", "start_array"}:
            if len(self._open) == MAX_DEPTH:
                raise ListError(f"line {number} is nested too deeply")
            self._open.append(_Open(path, number, {} if event == "start_map" else None))
            return None
        if parent is None or parent.members is None:
            return JsonValue(path, number, value)
        _add(parent.members, str(parent.name), value)
        return None


def replace_lone_surrogates(text: str) -> tuple[str, str]:
    r"""Replace escaped lone surrogates (`\ud800`), and return the JSON and an incomplete escape at its end.

    The parser would replace a lone surrogate by a question mark, which changes an address into another one.
    """
    if "\\" not in text:
        return text, ""
    rest = ""

    def replaced(found: re.Match[str]) -> str:
        nonlocal rest
        if found["part"]:
            rest = found["part"]
            return ""
        return NOT_TEXT if found["half"] else found[0]

    return _ESCAPE.sub(replaced, text), rest


def members_of(pairs: Iterable[tuple[str, Any]]) -> Members:
    """Return the members of an object. A duplicate member with different values becomes None."""
    members: Members = {}
    for name, value in pairs:
        _add(members, name, value)
    return members


def is_start(line: str) -> bool:
    """Return whether the line starts as JSON, up to the end of its first text or number."""
    parse = ijson.basic_parse_coro(events := ijson.sendable_list(), multiple_values=True)
    for start in range(0, len(line), SLICE):
        try:
            parse.send(replace_lone_surrogates(line[start : start + SLICE])[0].encode())
        except _NOT_JSON:
            return any(event in {"string", "map_key"} for event, _ in events)
        if len(events) > 1:
            return True
    return True


def _add(members: Members, name: str, value: Any) -> None:
    if name in members:
        if members[name] != value:
            members[name] = None
    elif len(members) < MAX_MEMBERS:
        members[name] = value[:MAX_LINE] if isinstance(value, str) else value
