"""Reader for lists in JSON: an object on each line, or documents of any shape and size with the records in one place.

A place is the path of keys to a record, with `ITEM` for any element of an array. A record is an object with an address,
or an address in an array. Of nested records, the outermost counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ctms.addresses import is_same
from ctms.bulk.columns import AmbiguousColumnsError, ReadOptions, choose_columns, may_have_addresses
from ctms.bulk.csv_lists import clean_reason
from ctms.bulk.dates import parse_date
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.json_values import ITEM, MAX_DEPTH, JsonPath, JsonValue, JsonValues, Members, is_start, members_of
from ctms.bulk.lines import MAX_LINE, Lines
from ctms.errors import ListError

SAMPLE = 1 << 16
"""Characters that are read before the place of the records is decided, unless the document ends first."""

MAX_PATHS = 500
"""Paths of elements without an address that are kept until the place of the records is known."""


def looks_like_json(line: str) -> bool:
    """Return whether the line starts an object or an array, and is not a Markdown link (`[jane@example.com](…)`)."""
    return line.lstrip().startswith(("{", "[")) and ("@" not in line or is_start(line))


def read_json(number: int, line: str, options: ReadOptions, lines: Lines) -> Iterator[Entry]:
    """Yield the entries of JSON whose first line is this one. Raises `ListError` when it has no addresses."""
    lines.push_back([(number, line)])
    first = _as_object(line)
    if first is not None and not _has_list_of_addresses(first, options):
        try:
            return _read_lines(_Records(first, options), lines)
        except AmbiguousColumnsError:
            raise
        except ListError:
            pass  # not a record: the records are inside it
    return _Documents(options, JsonValues(lines)).entries()


class _Records:
    """The records of one list: objects with the same members."""

    def __init__(self, first: Members, options: ReadOptions) -> None:
        names = list(first)
        columns = choose_columns(names, options, lambda position: "@" in str(first[names[position]]))
        self._opt_outs = options.opt_outs
        self._is_given = options.address is not None
        self.address = names[columns.address]
        self._date = None if columns.date is None else names[columns.date]
        self._reason = None if columns.reason is None else names[columns.reason]

    def entry(self, number: int, members: Members) -> Entry:
        """Return the entry for a record."""
        address = members.get(self.address)
        if not isinstance(address, str):
            return bad_entry(number, f"no address: there is no text in {self.address}")
        if len(address) == MAX_LINE:  # the rest was cut off
            return bad_entry(number, "too long")
        if not self._is_given and any(not is_same(address, other) for other in self._other_addresses(members)):
            return bad_entry(number, f"several addresses: choose their member, such as {self.address}, with --column")
        if not self._opt_outs:
            return make_entry(number, address.strip())
        at = parse_date(_as_text(members.get(self._date))) if self._date else None
        reason = clean_reason(_as_text(members.get(self._reason))) if self._reason else None
        return make_entry(number, address.strip(), at, reason)

    def _other_addresses(self, members: Members) -> Iterator[str]:
        for name, value in members.items():
            if name != self.address and isinstance(value, str) and "@" in value and may_have_addresses(name):
                yield value


def _read_lines(records: _Records, lines: Lines) -> Iterator[Entry]:
    for number, line in lines:
        members = None if len(line) == MAX_LINE else _as_object(line)
        yield bad_entry(number, "not a JSON object") if members is None else records.entry(number, members)


class _Documents:
    """A reader for documents, which buffers values until the place of the records is known."""

    def __init__(self, options: ReadOptions, values: JsonValues) -> None:
        self._options = options
        self._values = values
        self._buffer: list[JsonValue] = []
        self._buffered_since = 0
        self._skipped: set[JsonPath] = set()
        """Paths of elements that were buffered and discarded, because none had an address."""
        self._bare: int | None = None
        """The line of the first document without an address, from before the place of the records was known."""
        self._columns: list[str] = []
        """The members of the largest object that is not a record."""

        self._place: JsonPath | None = None
        self._element: JsonPath = ()
        """The part of the place up to its last array: each of its elements becomes an entry, even if it is bad."""
        self._records: _Records | None = None
        """None when the records are plain addresses."""
        self._line = 0
        self._count = 0
        self._in_element = 0
        self._in_document = 0
        self._lists = _Lists()
        self._inner_list = False
        """Whether an array inside a record has addresses: a single such record may describe the list."""
        self._addresses: set[str | None] = set()
        """The first two addresses."""

    def entries(self) -> Iterator[Entry]:
        """Yield the entries."""
        for value in self._values:
            if self._place is not None:
                yield from self._read(value)
                continue
            self._buffer.append(value)
            if value.path == () or self._values.read - self._buffered_since > SAMPLE:
                yield from self._decide(ended=value.path == ())
        if self._place is None and self._bare is not None:
            raise self._no_addresses(self._bare)
        if self._inner_list and len(self._addresses) == 1:
            raise ListError(
                f"line {self._line}: the only record has an address and also a list of addresses, and it is not known"
                " which are meant: keep one of them"
            )

    def _decide(self, *, ended: bool) -> Iterator[Entry]:
        """Decide on the place of the records, if a buffered value is one, and read the buffered values."""
        candidates = [value for value in self._buffer if _is_record(value, self._options)]
        if not candidates:
            self._discard(ended=ended)
            return
        if not ended:  # unfinished records may enclose finished ones
            candidates += [value for value in self._values.open_objects() if _is_record(value, self._options)]
        paths = {value.path for value in candidates}
        first = next(
            value for value in candidates if not any(value.path[:end] in paths for end in range(len(value.path)))
        )
        place = first.path
        for value in candidates:
            if value.path[: len(place)] != place:
                raise _several_places(first.line, value.line)
        self._place, self._line = place, first.line
        self._element = place[: max((end + 1 for end, step in enumerate(place) if step is ITEM), default=0)]
        self._records = None if isinstance(first.content, str) else _Records(first.content, self._options)
        if self._element in self._skipped:
            raise ListError(
                f"line {first.line}: no address is in what comes before, for more than {SAMPLE:,} characters"
            )
        if self._bare is not None and ITEM in place:
            raise self._no_addresses(self._bare)
        buffered, self._buffer = self._buffer, []
        self._lists = _Lists()
        for value in buffered:
            yield from self._read(value)

    def _discard(self, *, ended: bool) -> None:
        """Discard the buffered values, none of which has an address."""
        for value in self._buffer:
            self._lists.add(value)
            self._note_columns(value)
        if ended:
            document = self._buffer.pop()
            # A document may be a record without an address, if other documents are the records.
            self._buffer = [value for value in self._buffer if value.path == ()]
            if not self._lists.are_empty(document):
                self._bare = self._bare or document.line
                self._buffer.append(document)
            self._lists = _Lists()
        if not ended or len(self._buffer) > MAX_PATHS:
            self._skipped |= {value.path for value in self._buffer if value.path[-1:] in {(), (ITEM,)}}
            self._buffer = []
            if len(self._skipped) > MAX_PATHS:
                raise self._no_addresses(1)
        self._buffered_since = self._values.read

    def _read(self, value: JsonValue) -> Iterator[Entry]:
        """Yield the entry of a value, if it is a record or should be one."""
        path, place = value.path, self._place or ()
        self._lists.add(value)
        if path == place:
            self._in_element += 1
            self._in_document += 1
            yield self._entry(value)
        elif path[: len(place)] == place:
            if len(self._addresses) < 2 and not self._inner_list and ITEM in path[len(place) :]:
                self._inner_list = _is_record(value, self._options)
        elif _is_record(value, self._options):
            raise _several_places(self._line, value.line)
        if path == self._element:
            if not self._in_element and (path or not self._lists.are_empty(value)):
                self._in_document += 1
                yield self._numbered(bad_entry(value.line, "no address"))
            self._in_element = 0
        if path == ():
            if not self._in_document and not self._lists.are_empty(value):
                raise self._no_addresses(value.line)
            self._in_document = 0
            self._lists = _Lists()

    def _entry(self, value: JsonValue) -> Entry:
        content = value.content
        if self._records is None:
            entry = (
                make_entry(value.line, content.strip())
                if isinstance(content, str)
                else bad_entry(value.line, "no address: it is not text")
            )
        elif isinstance(content, dict):
            entry = self._records.entry(value.line, content)
        else:
            entry = bad_entry(value.line, "not a JSON object")
        if len(self._addresses) < 2:
            self._addresses.add(entry.address)
        return self._numbered(entry)

    def _numbered(self, entry: Entry) -> Entry:
        """Add the record's number to the problem of an entry, because a line may have many records."""
        self._count += 1
        return entry._replace(problem=f"record {self._count:,}: {entry.problem}") if entry.problem else entry

    def _note_columns(self, value: JsonValue) -> None:
        if isinstance(value.content, dict):
            self._columns = max(self._columns, list(value.content), key=len)

    def _no_addresses(self, line: int) -> ListError:
        """Return the error for a document without addresses."""
        try:
            if self._place is None and (self._columns or self._options.names):
                choose_columns(self._columns, self._options, lambda _: False)
        except ListError as error:
            return error
        return ListError(f"line {line}: the document that begins there has no addresses")


class _Lists:
    """The arrays of a document."""

    def __init__(self) -> None:
        self._empty = self._full = False

    def add(self, value: JsonValue) -> None:
        """Add a value of the document; only arrays count."""
        if value.is_array:
            self._empty |= value.is_empty
            self._full |= not value.is_empty

    def are_empty(self, document: JsonValue) -> bool:
        """Return whether the document is an empty list: empty itself, or with empty arrays only."""
        return (document.is_empty or self._empty) and not self._full


def _is_record(value: JsonValue, options: ReadOptions) -> bool:
    """Return whether the value is an object with an address, or an address that is an element of an array."""
    content = value.content
    if isinstance(content, str):
        # A document that is an array of text is a list, whatever the text is.
        return value.path[-1:] == (ITEM,) and not options.names and ("@" in content or len(value.path) == 1)
    if not isinstance(content, dict) or not content:
        return False
    try:
        _Records(content, options)
    except AmbiguousColumnsError:
        return True
    except ListError:
        return False
    return True


def _has_list_of_addresses(value: Any, options: ReadOptions, path: JsonPath = ()) -> bool:
    """Return whether an array inside the value has addresses, or the value is nested too deeply to be searched."""
    if len(path) > MAX_DEPTH:
        return True
    if isinstance(value, dict):
        inner: Iterable[tuple[str | None, Any]] = value.items()
    elif isinstance(value, list):
        inner = ((ITEM, item) for item in value)
    else:
        return False
    return any(
        (ITEM in (*path, step) and _is_record(JsonValue((*path, step), 0, item), options))
        or _has_list_of_addresses(item, options, (*path, step))
        for step, item in inner
    )


def _several_places(first: int, second: int) -> ListError:
    return ListError(
        f"records with addresses are at several places, as in the lines {first} and {second}, and it is not known which"
        " are meant: keep those of one place"
    )


def _as_object(line: str) -> Members | None:
    try:
        found = json.loads(line, object_pairs_hook=members_of)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)
