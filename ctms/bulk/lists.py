"""Streaming readers for lists of addresses and opt-outs, in the formats that other systems export.

A list has an address on each line, or is a CSV file or JSON. An unusable line becomes an entry with a problem. Only a
quote that does not end stops the reader.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ctms.addresses import is_plainly_valid, trim
from ctms.bulk.columns import ReadOptions, choose_columns, may_have_addresses
from ctms.bulk.csv_lists import read_header, read_table, separator
from ctms.bulk.csv_rows import has_open_quote, malformed
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.json_lists import looks_like_json, read_json
from ctms.bulk.lines import MAX_LINE, Lines

ADDRESSES_ONLY = ReadOptions()


def entries_of(addresses: Iterable[str]) -> Iterator[Entry]:
    """Yield an entry for each address that is given directly instead of in a list."""
    return (make_entry(None, address.strip()) for address in addresses)


def read(stream: BinaryIO, options: ReadOptions = ADDRESSES_ONLY) -> Iterator[Entry]:
    """Yield the entries of a list, which the caller resolves (`ctms.bulk.entries.resolve_entries`).

    Raises `ListError` before the first entry when several columns may have the addresses, and later when a quote does
    not end, or a JSON document or a compressed file is truncated.
    """
    lines = Lines(stream)
    delimiter = None
    for number, line in lines:
        if delimiter is None and (delimiter := separator(line)):
            continue
        if looks_like_json(line):
            yield from read_json(number, line, options, lines)
            return
        if len(line) == MAX_LINE:  # no header: a name that was cut off may be that of another column
            lines.push_back([(number, line)])
            break
        header = read_header(lines, line, options, delimiter)
        if len(header.names) > 1:
            yield from read_table(header, line, number, options, lines)
            return
        if options.names:
            choose_columns(header.names, options, lambda _: True)
        elif not may_have_addresses(header.names[0]):
            lines.push_back([(number, line)])
        break
    yield from _read_addresses(lines)


def _read_addresses(lines: Lines) -> Iterator[Entry]:
    """Yield an entry for each line."""
    make = Entry._make  # faster than a call with defaults, for each of a million lines
    for number, line in lines:
        text = line.strip()
        if is_plainly_valid(text) and len(line) < MAX_LINE:  # a longer line is truncated
            yield make((number, text, None, None, None, None))
        elif len(line) == MAX_LINE:
            if '"' in line or any('"' in piece for piece in lines.rest()):
                raise malformed(number)
            yield bad_entry(number, "too long")
        elif trim(text):  # otherwise the line has only invisible characters
            entry = make_entry(number, _unquoted(text))
            if entry.problem and has_open_quote(text):  # rather a row of a table, whose next lines may be anything
                raise malformed(number)
            yield entry


def _unquoted(text: str) -> str:
    """Return the text without quotes around all of it; the quotes of `"a b"@example.com` belong to the address."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"').strip()
    return text
