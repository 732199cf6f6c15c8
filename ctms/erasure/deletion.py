"""Deleting a batch of addresses, or only looking who would be: what `bulk.work_off` does for `delete-bulk`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from ctms.contacts import removal
from ctms.erasure.bulk import FOUND, UNKNOWN, Outcome, Work
from ctms.erasure.erase import Order, erase, hold
from ctms.erasure.models import ErasedAddress
from ctms.erasure.worklist import Item
from ctms.pool import Connection
from ctms.suppression.fingerprints import fingerprints

ERASED = "erased"
ERASED_BEFORE = "erased before"
"""Of an address that is nobody's, and that an earlier erasure had."""

_PARTS = """
    SELECT email_id, true FROM fxa WHERE email_id = ANY(%(ids)s)
    UNION ALL SELECT email_id, false FROM mofo WHERE email_id = ANY(%(ids)s)"""

_FIND = """
    SELECT g.position, e.email_id FROM unnest(%s::text[]) WITH ORDINALITY AS g (address, position)
    JOIN emails e ON lower(e.primary_email) = lower(g.address)"""

_FIND_ERASED = f"SELECT fingerprint FROM {ErasedAddress.__tablename__} WHERE fingerprint = ANY(%s)"


def deletion(order: Order) -> Work:
    """Return what erases the contacts with the addresses of a batch, as parts of one erasure."""

    def work(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
        addresses = [item.address or "" for item in items]
        hold(connection, order, addresses)
        found = removal.lock_addresses(connection, addresses)
        had = _parts(connection, [one.email_id for one in found.values()])
        erase(connection, order, list(found.values()), unknown=len(items) - len(found), addresses=addresses)
        before = _erased(connection, [address for address in addresses if address not in found])
        outcomes = []
        for item, address in zip(items, addresses, strict=True):
            if one := found.get(address):
                outcomes.append(Outcome(item, ERASED, one.email_id, *had[one.email_id]))
            else:
                outcomes.append(Outcome(item, ERASED_BEFORE if address in before else UNKNOWN))
        return outcomes

    return work


def look(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
    """Say whose the addresses of a batch are, and change nothing."""
    addresses = [item.address or "" for item in items]
    found = {position - 1: email_id for position, email_id in connection.execute(_FIND, (addresses,)).fetchall()}
    had = _parts(connection, list(found.values()))
    before = _erased(connection, [address for number, address in enumerate(addresses) if number not in found])
    outcomes = []
    for number, (item, address) in enumerate(zip(items, addresses, strict=True)):
        email_id = found.get(number)
        if email_id in had:
            outcomes.append(Outcome(item, FOUND, email_id, *had[email_id]))
        else:
            outcomes.append(Outcome(item, ERASED_BEFORE if address in before else UNKNOWN))
    return outcomes


def _parts(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, tuple[bool, bool]]:
    """Return which contacts have an account, and which the foundation knows."""
    rows = set(connection.execute(_PARTS, {"ids": list(email_ids)}).fetchall())
    return {email_id: ((email_id, True) in rows, (email_id, False) in rows) for email_id in email_ids}


def _erased(connection: Connection, addresses: Sequence[str]) -> set[str]:
    """Return the addresses that were erased, now or before; without a key nobody knows."""
    prints = {address: print_ for address in addresses if (print_ := fingerprints().of(address)) is not None}
    if not prints:
        return set()
    known = {bytes(one) for (one,) in connection.execute(_FIND_ERASED, (list(prints.values()),)).fetchall()}
    return {address for address, print_ in prints.items() if print_ in known}
