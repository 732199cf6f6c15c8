"""Deleting a batch of addresses, or only looking who would be: what `batches.work_off` does for `delete-bulk`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from ctms.addresses import spell_out
from ctms.bulk.batches import FOUND, UNKNOWN, Outcome, Work
from ctms.bulk.worklist import Item
from ctms.contacts import removal
from ctms.erasure.erase import Order, erase, hold
from ctms.erasure.models import ErasedAddress
from ctms.pool import Connection
from ctms.suppression.fingerprints import fingerprints

ERASED = "erased"
ERASED_BEFORE = "erased before"
"""Of an address that is nobody's, and that an earlier erasure had."""

_PARTS = """
    SELECT email_id, true FROM fxa WHERE email_id = ANY(%(ids)s)
    UNION ALL SELECT email_id, false FROM mofo WHERE email_id = ANY(%(ids)s)"""

_FIND = """
    SELECT DISTINCT g.position, e.email_id FROM unnest(%s::int[], %s::text[]) AS g (position, address)
    JOIN emails e ON lower(e.primary_email) = lower(g.address) ORDER BY g.position, e.email_id"""

_FIND_ERASED = f"SELECT fingerprint FROM {ErasedAddress.__tablename__} WHERE fingerprint = ANY(%s)"


def deletion(order: Order) -> Work:
    """Return what erases the contacts with the addresses of a batch, as parts of one erasure."""

    def work(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
        addresses = [item.address or "" for item in items]
        hold(connection, order, addresses)
        found = removal.lock_addresses(connection, addresses)
        contacts = {one.email_id: one for of_address in found.values() for one in of_address}
        had = _parts(connection, list(contacts))
        erase(connection, order, list(contacts.values()), unknown=len(items) - len(found), addresses=addresses)
        ids = {position: [one.email_id for one in of_address] for position, of_address in found.items()}
        return _outcomes(connection, items, ids, had, ERASED)

    return work


def look(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
    """Say whose the addresses of a batch are, and change nothing."""
    found: dict[int, list[UUID]] = defaultdict(list)
    for position, email_id in connection.execute(_FIND, spell_out(item.address or "" for item in items)).fetchall():
        found[position].append(email_id)
    had = _parts(connection, {email_id for ids in found.values() for email_id in ids})
    return _outcomes(connection, items, found, had, FOUND)


def _outcomes(
    connection: Connection,
    items: Sequence[Item],
    found: Mapping[int, Sequence[UUID]],
    had: Mapping[UUID, tuple[bool, bool]],
    outcome: str,
) -> list[Outcome]:
    """Return `outcome` for each contact `found` by the position of its address, and what is known of the others."""
    before = _erased(connection, [item.address or "" for position, item in enumerate(items) if position not in found])
    outcomes = []
    for position, item in enumerate(items):
        outcomes += [Outcome(item, outcome, email_id, *had[email_id]) for email_id in found.get(position, ())] or [
            Outcome(item, ERASED_BEFORE if item.address in before else UNKNOWN)
        ]
    return outcomes


def _parts(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, tuple[bool, bool]]:
    """Return which contacts have an account, and which the foundation knows."""
    rows = set(connection.execute(_PARTS, {"ids": list(email_ids)}).fetchall())
    return {email_id: ((email_id, True) in rows, (email_id, False) in rows) for email_id in email_ids}


def _erased(connection: Connection, addresses: Sequence[str]) -> set[str]:
    """Return the addresses that were erased, now or before; without a key nobody knows."""
    owners = {found: address for address in addresses for found in fingerprints().all_of(address)}
    if not owners:
        return set()
    return {owners[bytes(found)] for (found,) in connection.execute(_FIND_ERASED, (list(owners),)).fetchall()}
