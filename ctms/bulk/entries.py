"""The entries of lists: an address, with the time and reason of an opt-out, or the problem with a line.

An adopted database may store text that is not a valid address. A list can contain such text, for example to delete it.
So entries are compared with the stored addresses (`resolve_entries`), many at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from ctms.addresses import MAX_LENGTH, InvalidAddressError, is_plainly_valid, is_wildcard, parse_entry, spellings, trim
from ctms.bulk.lines import NOT_TEXT
from ctms.contacts.legacy_addresses import find_stored
from ctms.database.pool import Connection


class Entry(NamedTuple):
    """An address, with the time and the reason of an opt-out; or the `problem` with a line.

    `given` is the original text of an entry that is not resolved yet.
    """

    line: int | None
    address: str | None
    at: datetime | None = None
    reason: str | None = None
    problem: str | None = None
    given: str | None = None


def make_entry(line: int | None, text: str, at: datetime | None = None, reason: str | None = None) -> Entry:
    """Return the entry for this text, with an address, or with a problem that repeats nothing of the text."""
    if is_plainly_valid(text):
        return Entry(line, text, at, reason)
    problem = _no_text(text)
    if problem:
        return Entry(line, None, problem=problem)
    try:
        address = parse_entry(text)
    except InvalidAddressError:
        # Text longer than the column cannot be a stored address.
        return Entry(line, None, at, reason, _describe(text), text if len(text) <= MAX_LENGTH else None)
    return Entry(line, address, at, reason, None, text if address != text and len(text) <= MAX_LENGTH else None)


def bad_entry(line: int, problem: str) -> Entry:
    """Return the entry for an unusable line."""
    return Entry(line, None, problem=problem)


def resolve_entries(connection: Connection, entries: Iterable[Entry]) -> list[Entry]:
    """Resolve the entries with a `given` text: text that is not an address is a stored legacy address, or a problem.

    Text from which something was removed stands for the stored address with that spelling, or else for the remainder.
    """
    entries = list(entries)
    odd = [position for position, entry in enumerate(entries) if entry.given is not None]
    if odd:
        stored = find_stored(connection, [_texts(entries[position]) for position in odd])
        for position, address in zip(odd, stored, strict=True):
            entries[position] = _settle(entries[position], address)
    return entries


def _texts(entry: Entry) -> Sequence[str]:
    """Return the texts under which the entry may be stored, in all spellings if it is not an address."""
    given = entry.given or ""
    texts = dict.fromkeys((given, trim(given)))
    if entry.address is None:
        return list(dict.fromkeys(spelling for text in texts for spelling in spellings(text)))
    texts.pop(entry.address, None)
    return list(texts)


def _settle(entry: Entry, stored: str | None) -> Entry:
    if stored is not None:
        return entry._replace(address=stored, problem=None, given=None)
    if entry.address is None:
        return Entry(entry.line, None, problem=entry.problem)
    return entry._replace(given=None)


def _no_text(text: str) -> str | None:
    if NOT_TEXT in text:
        return "not text in UTF-8, UTF-16 or Windows-1252"
    if "\0" in text:
        return "a U+0000 in the address"
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a character, as JSON can spell it
        return "not text"
    return None


def _describe(text: str) -> str:
    """Describe the problem with text that is not an address."""
    if not text:
        return "no address"
    if "@" not in text:
        return "no address: there is no @"
    if len(text) > MAX_LENGTH:
        return f"more than {MAX_LENGTH} characters"
    if is_wildcard(trim(text)):
        return "a wildcard, not an address"
    if text.count("@") > 1:
        return "not one address: there are several @"
    return "not an e-mail address"
