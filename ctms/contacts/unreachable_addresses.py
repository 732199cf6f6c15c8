"""Stored addresses that no look-up finds, because an adopted database holds them in an unusual spelling.

Look-ups, erasures and suppressions search for the usual spellings of an address (`ctms.addresses.spellings`). This
module finds addresses in other spellings, such as a domain in full-width characters, and can store their normal form.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from ctms.addresses import InvalidAddressError, is_found_by, normalize
from ctms.contacts import commands
from ctms.contacts.parts import Identity
from ctms.contacts.registry import ADDRESSES
from ctms.database.pool import Connection

BATCH = 5_000
"""Number of rows that one statement reads."""

# Selects the few addresses that are not plain ASCII, so the cost is that of scanning the table.
_NEXT = """
    SELECT email_id, {column} FROM {table}
    WHERE email_id > %s AND ({column} ~ '[^a-zA-Z0-9.!#$%%&''*+/=?^_`{{|}}~@-]' OR {column} ~* 'xn--')
    ORDER BY email_id LIMIT %s"""
_UNUSUAL = re.compile(r"[^a-zA-Z0-9.!#$%&'*+/=?^_`{|}~@-]|[xX][nN]--")
_BEFORE_ALL = UUID(int=0)


class UnreachableAddress(NamedTuple):
    """A contact's address that a look-up of its normal form does not find, as the identity's name and normal form."""

    email_id: UUID
    identity: str
    normal: str


def find_unreachable(connection: Connection) -> Iterator[UnreachableAddress]:
    """Yield the addresses of contacts and of their accounts that a look-up of the normal form does not find."""
    for name, identity in ADDRESSES.items():
        for email_id, stored in chain.from_iterable(find_unusual(connection, identity)):
            try:
                normal = normalize(stored)
            except InvalidAddressError:
                continue  # not an address: it has only one spelling
            if not is_found_by(stored, normal):
                yield UnreachableAddress(email_id, name, normal)


def find_unusual(connection: Connection, identity: Identity) -> Iterator[Sequence[tuple[UUID, str]]]:
    """Yield the contacts with an address of this identity that may have other spellings than by case, in batches."""
    statement = _NEXT.format(table=identity.part.table, column=identity.column)
    last = _BEFORE_ALL
    while rows := connection.execute(statement, (last, BATCH)).fetchall():
        yield rows
        last = rows[-1][0]


def is_unusual(address: str) -> bool:
    """Return whether `find_unusual` yields a contact with this address."""
    return _UNUSUAL.search(address) is not None


def store_normal_form(connection: Connection, found: UnreachableAddress) -> None:
    """Store the normal form of the address, on a connection in pipeline mode, in the caller's transaction.

    Raises `Conflict` when another contact has it, `Forbidden` when it is suppressed, and `NotFound` when the contact
    no longer exists.
    """
    identity = ADDRESSES[found.identity]
    commands.update(connection, found.email_id, {identity.part.name: {identity.column: found.normal}})
