"""Reader for lists in CSV files: delimiter, header, and an entry for each row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ctms.bulk.columns import Columns, ReadOptions, choose_columns, is_known_column
from ctms.bulk.csv_rows import DELIMITERS, has_open_quote, parse_line, parse_sample, read_row
from ctms.bulk.dates import parse_date
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.lines import NOT_TEXT, Lines
from ctms.errors import ListError
from ctms.words import counted

MAX_HEADER_LINES = 20
"""Further lines that a header may have."""

SAMPLE = 20
"""The number of rows sampled to decide whether a column has addresses."""

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""The first line of files for Excel that names the delimiter."""

_SES_REASON = re.compile(r"\s*[A-Z]+\s*", re.ASCII)


class _BadRowError(Exception):
    """A row is unusable; the message gives the reason and repeats nothing of the row."""


@dataclass(frozen=True)
class Header:
    """The values of a first row and their delimiter."""

    delimiter: str
    names: list[str]


def separator(line: str) -> str | None:
    """Return the delimiter that a line such as `sep=;` names; None for any other line."""
    found = _SEPARATOR_LINE.fullmatch(line)
    return found[1] if found else None


def read_header(lines: Lines, line: str, options: ReadOptions, delimiter: str | None) -> Header:
    """Return the first row, parsed with the delimiter that yields the most known names, then the most columns.

    Its names may have line breaks if one of them is known: otherwise only its first line is read.
    """
    header = _parse_header(line, options, delimiter)
    if len(header.names) > 1 or not has_open_quote(line):
        return header
    for count, (_, text) in enumerate(lines.peek(MAX_HEADER_LINES), start=1):
        line += text
        whole = _parse_header(line, options, delimiter)
        if len(whole.names) > 1 and any(is_known_column(name, options) for name in whole.names):
            for _ in range(count):
                lines.next()
            return whole
    return header


def _parse_header(line: str, options: ReadOptions, delimiter: str | None) -> Header:
    found = [
        Header(one, names if is_known_column(names[0], options) else _without_empty_end(names, 1))
        for one in (DELIMITERS if delimiter is None else (delimiter,))
        if (names := parse_line(line, one)) is not None
    ]
    if not found:
        return Header(delimiter or DELIMITERS[0], [line.strip()])
    return max(
        found, key=lambda header: (sum(is_known_column(name, options) for name in header.names), len(header.names))
    )


def read_table(header: Header, line: str, number: int, options: ReadOptions, lines: Lines) -> Iterator[Entry]:
    """Yield the entries of a file with several columns, whose first row is this one.

    Raises `ListError` when the column with the addresses is not known, and later when it is not known where a row ends.
    """
    names = header.names
    if any("@" in name for name in names):
        # An Amazon SES list has no header, but an address and a reason in capital letters.
        if options.names or len(names) != 2 or "@" not in names[0] or not _SES_REASON.fullmatch(names[1]):
            raise ListError(
                f"line {number} has {counted(len(names), 'column')} and is no header: begin the list with a line that"
                " names the columns, and if none is `email` pass its name with --column"
            )
        lines.push_back([(number, line)])
        table = _Table(header, Columns(0, None, 1), options)
    else:
        try:
            columns = choose_columns(names, options, lambda position: _has_addresses(header, position, lines))
        except ListError as error:
            raise ListError(f"line {number}: {error.message}") from None
        table = _Table(header, columns, options)
    yield from table.entries(lines)


class _Table:
    """The rows below a header."""

    def __init__(self, header: Header, columns: Columns, options: ReadOptions) -> None:
        self._delimiter = header.delimiter
        self._count = len(header.names)
        self._columns = columns
        self._opt_outs = options.opt_outs

    def entries(self, lines: Lines) -> Iterator[Entry]:
        """Yield an entry for each row."""
        for number, line in lines.rows():
            try:
                cells = self._row(lines, number, line)
                if any(map(str.strip, cells)):  # spreadsheets end with empty rows
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
            reason = [self._delimiter.join(reason)]  # an unquoted reason that contains the delimiter
        address = cells[columns.address].strip()
        if not self._opt_outs:
            return make_entry(number, address)
        at = parse_date(cells[columns.date]) if columns.date is not None and columns.date < len(cells) else None
        return make_entry(number, address, at, clean_reason(reason[0] if reason else ""))

    def _row(self, lines: Lines, number: int, line: str) -> list[str]:
        """Return the values of the row that starts with this line. Raises `ListError`, or `_BadRowError`."""
        cells = read_row(lines, number, line, self._delimiter)
        if cells is None:
            raise _BadRowError("too long")
        return _without_empty_end(cells, self._count)


def clean_reason(text: str) -> str | None:
    """Return a reason without characters that the database cannot store; None if nothing is left."""
    return text.replace("\0", "").replace(NOT_TEXT, "").encode(errors="ignore").decode().strip() or None


def _without_empty_end(cells: list[str], count: int) -> list[str]:
    """Return the values without empty ones after the last column, since some programs end rows with a delimiter."""
    while len(cells) > count and not cells[-1].strip():
        cells.pop()
    return cells


def _has_addresses(header: Header, position: int, lines: Lines) -> bool:
    """Return whether one of the first values of a column has an @, or the column has no values."""
    rows = parse_sample((text for _, text in lines.peek(SAMPLE)), header.delimiter)
    values = [cells[position] for cells in rows if position < len(cells)]
    return not values or any("@" in value for value in values)
