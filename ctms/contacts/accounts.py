"""Contacts that have an address not as their own, but as that of their account, or lost it in a merge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any
from uuid import UUID

from ctms.addresses import expand_spellings, match_condition, spellings
from ctms.contacts import merged_addresses
from ctms.contacts.removal import LockedContact, lock_found
from ctms.database.pool import Connection, Cursor

_FIND = """
    SELECT position, email_id FROM (
        SELECT g.position, f.email_id FROM unnest(%b::int[], %b::text[]) AS g (position, address)
        JOIN fxa f ON lower(f.primary_email) = lower(g.address)
        UNION
        SELECT g.position, m.email_id FROM unnest(%b::int[], %b::bytea[]) AS g (position, fingerprint)
        JOIN merged_addresses m USING (fingerprint)
    ) others
    WHERE email_id <> ALL(%s) ORDER BY position, email_id"""


@cache
def _count(count: int) -> str:
    return f"""
        SELECT count(*) FROM (
            SELECT email_id FROM fxa f WHERE {match_condition("f.primary_email", count)}
            UNION SELECT email_id FROM merged_addresses WHERE fingerprint = %s
        ) others
        WHERE NOT EXISTS (
            SELECT FROM emails e WHERE e.email_id = others.email_id AND {match_condition("e.primary_email", count)})"""


def count(connection: Connection, address: str, fingerprint: bytes | None) -> Cursor:
    """Query the number of contacts that have or had the address, in any spelling, not as their own: one row."""
    spelt = spellings(address)
    return connection.execute(_count(len(spelt)), [*spelt, fingerprint, *spelt])


def find(connection: Connection, addresses: Sequence[str], without: Collection[UUID]) -> dict[int, list[UUID]]:
    """Return, by the position of an address, the contacts that have or had it not as their own, except `without`."""
    return _find(connection, _values(addresses, without))


def lock(connection: Connection, addresses: Sequence[str], without: Collection[UUID]) -> dict[int, list[LockedContact]]:
    """Lock the contacts that `find` returns, and return those that still have the address."""
    values = _values(addresses, without)  # once: the spellings and fingerprints of many addresses take time
    return lock_found(connection, lambda: _find(connection, values))


def _values(addresses: Sequence[str], without: Collection[UUID]) -> Sequence[Any]:
    """Return the values for `_FIND`."""
    return (*expand_spellings(addresses), *merged_addresses.by_position(addresses), list(without))


def _find(connection: Connection, values: Sequence[Any]) -> dict[int, list[UUID]]:
    found: dict[int, list[UUID]] = defaultdict(list)
    for position, email_id in connection.execute(_FIND, values).fetchall():
        found[position].append(email_id)
    return found
