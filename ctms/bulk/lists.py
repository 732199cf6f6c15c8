"""Reading lists of addresses and of opt-outs: line by line, so that the size of a list costs no memory.

A line that cannot be used becomes an entry that says so; it never ends the list.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from ctms.bulk.lines import LONGEST_LINE, NOT_TEXT, Lines
from ctms.errors import ListError

LONGEST_ADDRESS = 255
"""Characters: what the column takes."""

MOST_LINES = 20
"""A value in quotes may go on in further lines, this many in all; a quote that does not end costs one line only."""

DELIMITERS = (",", "\t", ";", "|")

# The names of columns, in lower case and without what is no letter.
_ADDRESS = ("email", "emailaddress", "primaryemail")
_DATE = ("date",)
_REASON = ("reason",)

# A date with AM or PM, which `datetime.fromisoformat` does not know.
_TWELVE_HOURS = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d?):(\d\d(?::\d\d)?) ?([AP])M", re.IGNORECASE | re.ASCII)


class Entry(NamedTuple):
    """What a line says: an address, for an opt-out also when and why; or the `problem` that makes it of no use."""

    line: int | None
    address: str | None
    at: datetime | None = None
    reason: str | None = None
    problem: str | None = None


class _Bad(Exception):
    """A line cannot be used; the message says why and repeats nothing of it."""


def given(addresses: Iterable[str]) -> Iterator[Entry]:
    """Give an entry for each address that was given by itself, not in a list."""
    for address in addresses:
        try:
            yield Entry(None, _address(address))
        except _Bad as bad:
            yield Entry(None, None, problem=str(bad))


def addresses(stream: BinaryIO) -> Iterator[Entry]:
    """Read a list of addresses: one a line, or a CSV file in which a column is named `email`.

    Raises `ListError` where the first line has several columns and none is named `email`.
    """
    lines = Lines(stream)
    for number, first in lines:
        columns = _Columns.named_in(first)
        if columns.address is None:
            if _looks_like_columns(first):
                raise ListError(
                    f"line {number} has several columns: name the one with the addresses `email` in a header"
                )
            lines.give_back([(number, first)])
        elif columns.count > 1:
            yield from columns.entries(lines)
        break
    for number, line in lines:
        try:
            yield Entry(number, _address(_unquoted(line)))
        except _Bad as bad:
            yield Entry(number, None, problem=str(bad))


def opt_outs(stream: BinaryIO) -> Iterator[Entry]:
    """Read a list of opt-outs: a CSV file with the columns Email, Date and, if it has one, Reason.

    They may come in any order and case, with any delimiter of `DELIMITERS`, quoted or not; other columns are passed
    over. Raises `ListError` where Email or Date is missing.
    """
    lines = Lines(stream)
    for number, first in lines:
        columns = _Columns.named_in(first)
        missing = [name for name, there in (("Email", columns.address), ("Date", columns.date)) if there is None]
        if missing:
            raise ListError(f"line {number} must name the columns Email and Date: {' and '.join(missing)} missing")
        yield from columns.entries(lines)
        return
    raise ListError("the list is empty: its first line must name the columns Email and Date")


class _Columns:
    """The columns of a CSV file: where is what we want, if it is there."""

    def __init__(self, delimiter: str, names: list[str]) -> None:
        def find(wanted: tuple[str, ...]) -> int | None:
            return next((names.index(name) for name in wanted if name in names), None)

        self.count = len(names)
        self.address, self.date, self._reason = find(_ADDRESS), find(_DATE), find(_REASON)
        self._delimiter = delimiter

    @classmethod
    def named_in(cls, header: str) -> _Columns:
        """Read a header with the delimiter by which it names most of what we want."""
        found = []
        for delimiter in DELIMITERS:
            try:
                cells = _cells(header, delimiter)
            except csv.Error:
                cells = []
            found.append(cls(delimiter, [re.sub(r"[\W_]", "", cell).lower() for cell in cells]))
        return max(found, key=lambda columns: (columns._known, columns.count))  # noqa: SLF001

    @property
    def _known(self) -> int:
        return sum(place is not None for place in (self.address, self.date, self._reason))

    def entries(self, lines: Lines) -> Iterator[Entry]:
        """Give an entry for each row."""
        for number, line in lines:
            try:
                yield self._entry(number, self._row(lines, line))
            except _Bad as bad:
                yield Entry(number, None, problem=str(bad))

    def _entry(self, number: int, cells: list[str]) -> Entry:
        assert self.address is not None  # noqa: S101  who made us has looked
        if len(cells) <= max(self.address, self.date or 0):
            raise _Bad("too few columns")
        reason = None if self._reason is None else cells[self._reason :]
        if len(cells) > self.count:
            if reason is None or self._reason != self.count - 1:
                raise _Bad("more columns than the header has")
            reason = [self._delimiter.join(reason)]  # it has a delimiter in it, and no quotes
        at = None if self.date is None else _moment(cells[self.date])
        return Entry(number, _address(cells[self.address]), at, _reason(reason))

    def _row(self, lines: Lines, line: str) -> list[str]:
        """Return the values of the row that begins with this line."""
        _check_length(line)
        try:
            return self._without_blanks(line)
        except csv.Error:
            pass
        further: list[tuple[int, str]] = []
        while len(further) < MOST_LINES - 1 and (found := lines.next()) is not None:
            further.append(found)
            try:
                cells = self._without_blanks("".join([line, *(text for _, text in further)]))
            except csv.Error:
                continue
            if len(cells) == self.count and "\n" not in cells[self.address or 0].strip():
                return cells
            break
        lines.give_back(further)
        raise _Bad("a quote that does not end, or that is not doubled within a value in quotes")

    def _without_blanks(self, line: str) -> list[str]:
        """Return the values of a row, but empty ones behind the last column: some programs write a delimiter there."""
        cells = _cells(line, self._delimiter)
        while len(cells) > self.count and not cells[-1].strip():
            cells.pop()
        return cells


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the values of a row. Raises `csv.Error`."""
    return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=True))


def _looks_like_columns(line: str) -> bool:
    """True for a row with an address among other columns; `"a,b"@example.com` is an address."""
    for delimiter in DELIMITERS:
        try:
            cells = _cells(line, delimiter)
        except csv.Error:
            continue
        if len(cells) > 1 and any("@" in cell for cell in cells):
            return True
    return False


def _check_length(line: str) -> None:
    if len(line) == LONGEST_LINE:
        raise _Bad("too long")


def _unquoted(line: str) -> str:
    """Take off quotes around a whole line; those of `"a b"@example.com` belong to the address."""
    _check_length(line)
    text = line.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _address(text: str) -> str:
    address = text.strip()
    if NOT_TEXT in address:
        raise _Bad("not text in UTF-8 or UTF-16")
    if "\0" in address:
        raise _Bad("a U+0000 in the address")
    if "@" not in address:
        raise _Bad("no address: there is no @")
    if len(address) > LONGEST_ADDRESS:
        raise _Bad(f"an address of more than {LONGEST_ADDRESS} characters")
    return address


def _reason(cells: list[str] | None) -> str | None:
    """Return the first of these values, if there is one and it says something."""
    reason = cells[0].strip() if cells else ""
    if "\0" in reason or NOT_TEXT in reason:
        raise _Bad("the reason is not text in UTF-8 or UTF-16")
    return reason or None


@lru_cache(4096)  # there are fewer minutes than lines
def _moment(text: str) -> datetime | None:
    """Return the moment, in UTC where it does not say; None for none."""
    text = text.strip()
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(_of_24_hours(text))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _Bad("the date is neither ISO 8601 nor YYYY-MM-DD HH:MM AM") from None


def _of_24_hours(text: str) -> str:
    found = _TWELVE_HOURS.fullmatch(text)
    if found is None or not 1 <= int(found[2]) <= 12:
        return text
    return f"{found[1]} {int(found[2]) % 12 + 12 * (found[4] in 'pP'):02}:{found[3]}"
