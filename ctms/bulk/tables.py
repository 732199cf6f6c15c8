"""CSV files: their delimiter, their header, and an entry for each row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass

from ctms.addresses import is_plainly_valid
from ctms.bulk.columns import Columns, Wanted, choose, is_known
from ctms.bulk.dates import parse_date
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.lines import MAX_LINE, NOT_TEXT, Lines
from ctms.errors import ListError
from ctms.words import counted

MAX_ROW_LINES = 20
"""A value in quotes may go on in further lines, so many in all; a quote that does not end costs one line only."""

SAMPLE = 20
"""Rows that are looked at to find out whether a column has addresses."""

DELIMITERS = (",", "\t", ";", "|")

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line of files that Excel is to open, whatever its language."""

_SES_REASON = re.compile(r"\s*[A-Z]+\s*", re.ASCII)


class _BadRowError(Exception):
    """A row cannot be used; the message says why and repeats nothing of it."""


@dataclass(frozen=True)
class Header:
    """The values of a first row, and the delimiter between them."""

    delimiter: str
    names: list[str]


def separator(line: str) -> str | None:
    """Return the delimiter that a line `sep=;` names; None for another line."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return found[1] if found else None


def read_header(line: str, wanted: Wanted, delimiter: str | None) -> Header:
    """Return the first row, read with the delimiter by which it has the most known names, and then the most columns."""
    found = []
    for one in DELIMITERS if delimiter is None else (delimiter,):
        try:
            names = _cells(line, one)
        except csv.Error:
            continue
        found.append(Header(one, _without_empty_end(names, 1)))
    if not found:
        return Header(delimiter or DELIMITERS[0], [line.strip()])
    return max(found, key=lambda header: (sum(is_known(name, wanted) for name in header.names), len(header.names)))


def read_table(header: Header, line: str, number: int, wanted: Wanted, lines: Lines) -> Iterator[Entry]:
    """Give the entries of a file with several columns, whose first row is this one.

    Raises `ListError` where it is not known which column has the addresses.
    """
    names = header.names
    if any("@" in name for name in names):
        # A list of Amazon SES has no header: an address and a reason in capital letters.
        if wanted.names or len(names) != 2 or not (is_plainly_valid(names[0]) and _SES_REASON.fullmatch(names[1])):
            raise ListError(
                f"line {number} has {counted(len(names), 'column')} and is no header: begin the list with a line that"
                " names the columns, and if none is `email` pass its name with --column"
            )
        lines.give_back([(number, line)])
        table = _Table(header, Columns(0, None, 1), wanted)
    else:
        try:
            columns = choose(names, wanted, lambda position: _has_addresses(header, position, lines))
        except ListError as error:
            raise ListError(f"line {number}: {error.message}") from None
        table = _Table(header, columns, wanted)
    yield from table.entries(lines)


class _Table:
    """The rows below a header."""

    def __init__(self, header: Header, columns: Columns, wanted: Wanted) -> None:
        self._delimiter = header.delimiter
        self._count = len(header.names)
        self._columns = columns
        self._opt_outs = wanted.opt_outs

    def entries(self, lines: Lines) -> Iterator[Entry]:
        """Give an entry for each row."""
        for number, line in lines:
            try:
                cells = self._row(lines, line)
                if any(map(str.strip, cells)):  # spreadsheets end in rows without values
                    yield self._entry(number, cells)
            except _BadRowError as bad:
                yield bad_entry(number, str(bad))

    def _entry(self, number: int, cells: list[str]) -> Entry:
        columns = self._columns
        if len(cells) <= columns.address:
            raise _BadRowError("too few columns")
        reason = None if columns.reason is None else cells[columns.reason :]
        if len(cells) > self._count:
            if reason is None or columns.reason != self._count - 1:
                raise _BadRowError("more columns than the first row has")
            reason = [self._delimiter.join(reason)]  # it has a delimiter in it, and no quotes
        address = cells[columns.address].strip()
        if not self._opt_outs:
            return make_entry(number, address)
        at = parse_date(cells[columns.date]) if columns.date is not None and columns.date < len(cells) else None
        return make_entry(number, address, at, clean_reason(reason[0] if reason else ""))

    def _row(self, lines: Lines, line: str) -> list[str]:
        """Return the values of the row that begins with this line."""
        if len(line) == MAX_LINE:
            raise _BadRowError("too long")
        if '"' not in line:
            return _without_empty_end(line.rstrip("\n").split(self._delimiter), self._count)
        try:
            return self._cells(line)
        except csv.Error:
            pass
        further: list[tuple[int, str]] = []
        while len(further) < MAX_ROW_LINES - 1 and (found := lines.next()) is not None:
            further.append(found)
            try:
                cells = self._cells("".join([line, *(text for _, text in further)]))
            except csv.Error:
                continue
            if len(cells) == self._count and "\n" not in cells[self._columns.address].strip():
                return cells
            break
        lines.give_back(further)
        raise _BadRowError("a quote that does not end, or that is not doubled within a value in quotes")

    def _cells(self, line: str) -> list[str]:
        return _without_empty_end(_cells(line, self._delimiter), self._count)


def clean_reason(text: str) -> str | None:
    """Return a reason without what the database cannot store; None where nothing is left."""
    return text.replace("\0", "").replace(NOT_TEXT, "").encode(errors="ignore").decode().strip() or None


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the values of a row. Raises `csv.Error`."""
    return next(csv.reader((line,), delimiter=delimiter, strict=True, skipinitialspace=True))


def _without_empty_end(cells: list[str], count: int) -> list[str]:
    """Return the values without empty ones behind the last column: some programs write a delimiter there."""
    while len(cells) > count and not cells[-1].strip():
        cells.pop()
    return cells


def _has_addresses(header: Header, position: int, lines: Lines) -> bool:
    """True when one of the first values of a column has an @, or when there are none."""
    looked: list[tuple[int, str]] = []
    values = []
    while len(looked) < SAMPLE and (found := lines.next()) is not None:
        looked.append(found)
        try:
            values.append(_cells(found[1], header.delimiter)[position])
        except (csv.Error, IndexError):
            continue
    lines.give_back(looked)
    return not values or any("@" in value for value in values)
