"""Reading lists of addresses and of opt-outs: as other systems export them, so that the size of a list costs no memory.

A list has an address on each line, or it is a CSV file or JSON. A line that cannot be used becomes an entry that says
so; it never ends the list.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ctms.addresses import is_plainly_valid, trim
from ctms.bulk.columns import Wanted, choose, may_have_addresses
from ctms.bulk.documents import looks_like_json, read_json
from ctms.bulk.entries import Entry, bad_entry, make_entry
from ctms.bulk.lines import MAX_LINE, Lines
from ctms.bulk.tables import read_header, read_table, separator

ADDRESSES = Wanted()


def given(addresses: Iterable[str]) -> Iterator[Entry]:
    """Give an entry for each address that was given by itself, not in a list."""
    return (make_entry(None, address.strip()) for address in addresses)


def read(stream: BinaryIO, wanted: Wanted = ADDRESSES) -> Iterator[Entry]:
    """Read a list. Its entries have still to be settled (`ctms.bulk.entries.settled`).

    Raises `ListError`, before the first entry, where it is not known which of several columns has the addresses, and
    later where a document of JSON or a compressed file does not go on.
    """
    lines = Lines(stream)
    delimiter = None
    for number, line in lines:
        if delimiter is None and (delimiter := separator(line)):
            continue
        if looks_like_json(line):
            yield from read_json(number, line, wanted, lines)
            return
        header = read_header(line, wanted, delimiter)
        if len(header.names) > 1:
            yield from read_table(header, line, number, wanted, lines)
            return
        if wanted.names:
            choose(header.names, wanted, lambda _: True)
        elif not may_have_addresses(header.names[0]):
            lines.give_back([(number, line)])
        break
    yield from _read_addresses(lines)


def _read_addresses(lines: Lines) -> Iterator[Entry]:
    """Give an entry for each line."""
    make = Entry._make  # quicker than a call with defaults, for each of a million lines
    for number, line in lines:
        text = line.strip()
        if is_plainly_valid(text):
            yield make((number, text, None, None, None, None))
        elif len(line) == MAX_LINE:
            yield bad_entry(number, "too long")
        elif trim(text):  # else the line is blank, but for invisible characters
            yield make_entry(number, _unquoted(text))


def _unquoted(text: str) -> str:
    """Return the text without quotes around all of it; those of `"a b"@example.com` belong to the address."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"').strip()
    return text
