"""Stored addresses that no look-up finds: an adopted database may hold spellings that are not looked for.

Look-ups, erasures and suppressions ask for the usual spellings of an address (`ctms.addresses.spellings`). What is
stored in another one, a domain in full-width characters for instance, is found here, and can be given its normal form.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from ctms.addresses import InvalidAddressError, is_found_by, normalize
from ctms.contacts import commands
from ctms.pool import Connection

BATCH = 5_000
"""Rows that one statement reads."""

_TABLES = {"primary_email": ("emails", "email"), "fxa_primary_email": ("fxa", "fxa")}

# Addresses that are not plain: few, so reading the others costs no more than the walk over the table.
_NEXT = """
    SELECT email_id, primary_email FROM {table}
    WHERE email_id > %s AND (primary_email ~ '[^a-zA-Z0-9.!#$%%&''*+/=?^_`{{|}}~@-]' OR primary_email ~* 'xn--')
    ORDER BY email_id LIMIT %s"""
_BEFORE_ALL = UUID(int=0)


class Unreachable(NamedTuple):
    """A contact's address that its normal form does not find: the identity that it is, and the normal form."""

    email_id: UUID
    identity: str
    normal: str


def find_unreachable(connection: Connection) -> Iterator[Unreachable]:
    """Give the addresses of contacts and of their accounts that the other spellings do not find."""
    for identity, (table, _) in _TABLES.items():
        last = _BEFORE_ALL
        while rows := connection.execute(_NEXT.format(table=table), (last, BATCH)).fetchall():
            for email_id, stored in rows:
                try:
                    normal = normalize(stored)
                except InvalidAddressError:
                    continue  # it is no address, and has one spelling
                if not is_found_by(stored, normal):
                    yield Unreachable(email_id, identity, normal)
            last = rows[-1][0]


def store_normal_form(connection: Connection, found: Unreachable) -> None:
    """Store the normal form of the address, on a connection in pipeline mode, in a transaction of the caller's.

    Raises `Conflict` when another contact has it, `Forbidden` when it is suppressed, `NotFound` when the contact
    is gone.
    """
    _, group = _TABLES[found.identity]
    commands.change(connection, found.email_id, {group: {"primary_email": found.normal}})
