"""JSON: an object a line, or documents of any shape and size that hold the records somewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ijson

from ctms.bulk.columns import AmbiguousColumnsError, Wanted, choose
from ctms.bulk.dates import parse_date
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.lines import MAX_LINE, Lines
from ctms.bulk.tables import clean_reason
from ctms.errors import ListError

MAX_VALUE = 1 << 20
"""Characters of one value in a document."""

MAX_MEMBERS = 500
"""Members of an object that are looked at."""

MAX_DEPTH = 50
"""Objects and arrays within each other."""

Members = dict[str, Any]


def looks_like_json(line: str) -> bool:
    """True for the beginning of an object or an array."""
    return line.lstrip().startswith(("{", "["))


def read_json(number: int, line: str, wanted: Wanted, lines: Lines) -> Iterator[Entry]:
    """Give the entries of JSON whose first line is this one. Raises `ListError` where it has no addresses."""
    lines.give_back([(number, line)])
    try:
        first = _as_object(line)
        records = None if first is None else _Records(first, wanted)
    except AmbiguousColumnsError:
        raise
    except ListError:
        records = None  # an object of another kind: the records are within it
    return _read_documents(wanted, lines) if records is None else _read_lines(records, lines)


class _Records:
    """The records of one list: objects with the same members."""

    def __init__(self, first: Members, wanted: Wanted) -> None:
        names = list(first)
        columns = choose(names, wanted, lambda position: "@" in str(first[names[position]]))
        self._opt_outs = wanted.opt_outs
        self.address = names[columns.address]
        self._date = None if columns.date is None else names[columns.date]
        self._reason = None if columns.reason is None else names[columns.reason]

    def entry(self, number: int, members: Members) -> Entry:
        """Return the entry of a record."""
        address = members.get(self.address)
        if not isinstance(address, str):
            return bad_entry(number, f"no address: there is no text in {self.address}")
        if not self._opt_outs:
            return make_entry(number, address.strip())
        at = parse_date(_as_text(members.get(self._date))) if self._date else None
        reason = clean_reason(_as_text(members.get(self._reason))) if self._reason else None
        return make_entry(number, address.strip(), at, reason)


def _read_lines(records: _Records, lines: Lines) -> Iterator[Entry]:
    for number, line in lines:
        members = None if len(line) == MAX_LINE else _as_object(line)
        yield bad_entry(number, "not a JSON object") if members is None else records.entry(number, members)


def _read_documents(wanted: Wanted, lines: Lines) -> Iterator[Entry]:
    document = _Document(wanted)
    parse = ijson.parse_coro(events := ijson.sendable_list(), multiple_values=True, use_float=True)
    number = silent = 0
    try:
        for number, piece in lines.pieces():
            parse.send(piece.encode())
            silent = 0 if events else silent + len(piece)
            if silent > MAX_VALUE:
                raise ListError(f"line {number} has a value that is too long")
            for prefix, event, value in events:
                entry = document.take(number, prefix, event, value)
                if entry is not None:
                    yield entry
            events.clear()
        parse.close()
    except (ijson.JSONError, UnicodeEncodeError):
        raise ListError(f"line {number} is not JSON, or the document does not end there") from None
    document.check()


class _Document:
    """A document that is being read: what is open at this point, and where the records are."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._open: list[_Open] = []
        self._records: _Records | None = None
        self._place: str | None = None
        self._others: list[str] = []

    def take(self, number: int, prefix: str, event: str, value: Any) -> Entry | None:
        """Take the next event of the parser; returns the entry that is complete with it."""
        if event in {"start_map", "start_array"}:
            if len(self._open) == MAX_DEPTH:
                raise ListError(f"line {number} is nested too deeply")
            self._open.append(_Open(number, {} if event == "start_map" else None))
        elif event == "map_key":
            self._open[-1].name = value
        elif event == "end_map":
            return self._end(prefix, self._open.pop())
        elif event == "end_array":
            self._open.pop()
        elif prefix == "item" and isinstance(value, str):
            return make_entry(number, value.strip())  # a list of addresses, not of objects
        elif self._open and (members := self._open[-1].members) is not None and len(members) < MAX_MEMBERS:
            members[self._open[-1].name] = value
        return None

    def check(self) -> None:
        """Raise `ListError` where there were objects and none was a record."""
        if self._others and self._records is None:
            choose(self._others, self._wanted, lambda _: False)

    def _end(self, prefix: str, ended: _Open) -> Entry | None:
        """Return the entry of an object, if it is a record."""
        members = ended.members or {}
        if self._records is None and members:
            try:
                self._records, self._place = _Records(members, self._wanted), prefix
            except AmbiguousColumnsError:
                raise
            except ListError:
                self._others = max(self._others, list(members), key=len)
        if self._records is None or prefix != self._place:
            return None
        return self._records.entry(ended.line, members)


@dataclass
class _Open:
    """An object whose end has not been read, with its members so far; or an array."""

    line: int
    members: Members | None
    name: str = ""


def _as_object(line: str) -> Members | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
