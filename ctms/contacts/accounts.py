"""Contacts that have an address only as that of their account (`fxa_primary_email`), not as their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import cache
from uuid import UUID

from ctms.addresses import expand_spellings, is_same, match_condition, spellings
from ctms.contacts.removal import LockedContact, lock_ids
from ctms.database.pool import Connection, Cursor

_FIND = """
    SELECT DISTINCT g.position, f.email_id FROM unnest(%s::int[], %s::text[]) AS g (position, address)
    JOIN fxa f ON lower(f.primary_email) = lower(g.address)
    WHERE f.email_id <> ALL(%s) ORDER BY g.position, f.email_id"""


@cache
def _count(count: int) -> str:
    return f"""
        SELECT count(*) FROM fxa f WHERE {match_condition("f.primary_email", count)} AND NOT EXISTS (
            SELECT FROM emails e WHERE e.email_id = f.email_id AND {match_condition("e.primary_email", count)})"""


def count(connection: Connection, address: str) -> Cursor:
    """Query the number of contacts that have the address, in any spelling, only as that of their account: one row."""
    spelt = spellings(address)
    return connection.execute(_count(len(spelt)), [*spelt, *spelt])


def find(connection: Connection, addresses: Sequence[str], without: Collection[UUID]) -> dict[int, list[UUID]]:
    """Return, by the position of an address, the contacts that have it as that of their account, except `without`."""
    found: dict[int, list[UUID]] = defaultdict(list)
    rows = connection.execute(_FIND, (*expand_spellings(addresses), list(without))).fetchall()
    for position, email_id in rows:
        found[position].append(email_id)
    return found


def lock(connection: Connection, addresses: Sequence[str], without: Collection[UUID]) -> dict[int, list[LockedContact]]:
    """Lock the contacts that `find` returns, and return those that still have the address."""
    wanted = find(connection, addresses, without)
    locked = {one.email_id: one for one in lock_ids(connection, {one for ids in wanted.values() for one in ids})}
    found: dict[int, list[LockedContact]] = defaultdict(list)
    for position, ids in wanted.items():
        for one in (locked[email_id] for email_id in ids if email_id in locked):
            if is_same(one.addresses.get("fxa_primary_email", ""), addresses[position]):
                found[position].append(one)
    return found
