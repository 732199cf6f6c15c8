"""Rows of CSV (RFC 4180), whose values in quotes may have line breaks.

A quote that does not end, or is not doubled within a value in quotes, hides where the next row begins: the next line
may be a row, or text in which a person names others. Reading stops there, rather than take somebody for an entry.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from unicodedata import category

from ctms.bulk.lines import MAX_LINE, Lines
from ctms.errors import ListError

MAX_ROW = 1_000_000
"""Characters of a row with quotes."""

DELIMITERS = (",", "\t", ";", "|")

_BLANK = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and a symbol that have no form; other invisible characters have a category of their own."""

_OPEN_QUOTE = re.compile(r'(?:^|[,;\t|])[^\S\t]*"(?:[^"]|"")*\Z')


def malformed(number: int) -> ListError:
    """Return the error for a row whose end is not known; it repeats nothing of the row."""
    return ListError(
        f"line {number}: a quote does not end, or is not doubled within a value in quotes, or the value has more than"
        f" {csv.field_size_limit():,} characters: correct the row, since it is not known where the next one begins"
    )


def has_open_quote(line: str) -> bool:
    """Return whether a value of the line, whatever its delimiter, has a quote that does not end there."""
    return line.count('"') % 2 == 1 or _OPEN_QUOTE.search(line) is not None


def read_row(lines: Lines, number: int, first: str, delimiter: str) -> list[str] | None:
    """Return the values of the row whose first line was just read; None if it has no quotes and is too long.

    Reads the further lines of the row. Raises `ListError` when it is not known where the row ends.
    """
    if '"' not in first:
        if len(first) < MAX_LINE:
            return first.rstrip("\r\n").split(delimiter)
        if any('"' in piece for piece in lines.rest()):
            raise malformed(number)
        return None
    cells, line = parse_line(first, delimiter) if len(first) < MAX_LINE else None, first
    if cells is None:
        line = ""
        try:
            cells = next(_reader(_whole_lines(lines, first), delimiter))
        except csv.Error:
            raise malformed(number) from None
    if any('"' in cell and _only_looks_quoted(cell, line, delimiter) for cell in cells):
        raise malformed(number)
    return cells


def _only_looks_quoted(cell: str, line: str, delimiter: str) -> bool:
    """Return whether invisible characters hide that a value begins with a quote, so that its end is not known.

    `line` is the whole row, or empty if it has several lines.
    """
    start = cell[: cell.index('"')]
    if cell.count('"') % 2 == 0 or not start.strip(" ") or any(map(_is_visible, start)):
        return False
    if "\n" in start or "\r" in start:  # only a value in quotes has them
        return False
    return not line or re.search(rf'(?:^|{re.escape(delimiter)}) *{re.escape(start)}"', line) is not None


def _is_visible(character: str) -> bool:
    return category(character)[0] not in "CMZ" and character not in _BLANK


def parse_line(line: str, delimiter: str) -> list[str] | None:
    """Return the values of a row of one line; None if it is malformed, or does not end there."""
    try:
        return next(_reader(iter((line,)), delimiter))
    except csv.Error:
        return None


def parse_sample(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Yield the rows of these lines, until one is malformed or does not end."""
    with suppress(csv.Error):
        yield from _reader(iter(lines), delimiter)


def _reader(lines: Iterator[str], delimiter: str) -> Iterator[list[str]]:
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _whole_lines(lines: Lines, first: str) -> Iterator[str]:
    """Yield the first line and the next ones, each complete. Raises `csv.Error` after `MAX_ROW` characters."""
    left = MAX_ROW
    for start in chain([first], (text for _, text in iter(lines.next, None))):
        pieces = []
        for piece in chain([start], lines.rest()):
            pieces.append(piece)
            left -= len(piece)
            if left < 0:
                raise csv.Error
        yield "".join(pieces)
