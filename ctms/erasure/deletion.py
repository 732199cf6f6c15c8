"""Delete the contacts with a batch of addresses, or preview that: the work of `delete-bulk` (`ctms.bulk.batches`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from ctms.addresses import expand_spellings
from ctms.bulk.batches import FOUND, UNKNOWN, ItemOutcome
from ctms.bulk.worklist import WorkItem
from ctms.contacts import accounts, removal
from ctms.contacts.registry import ADDRESSES
from ctms.database.pool import Connection
from ctms.erasure.erase import ErasureRequest, addresses_of, erase, find_erased, lock_addresses_to_forget

ERASED = "erased"
ERASED_BEFORE = "erased before"
"""The outcome of an address without a contact that an earlier erasure had."""

_PARTS = """
    SELECT email_id, true FROM fxa WHERE email_id = ANY(%(ids)s)
    UNION ALL SELECT email_id, false FROM mofo WHERE email_id = ANY(%(ids)s)"""

_FIND = """
    SELECT DISTINCT g.position, e.email_id FROM unnest(%b::int[], %b::text[]) AS g (position, address)
    JOIN emails e ON lower(e.primary_email) = lower(g.address) ORDER BY g.position, e.email_id"""

_ADDRESSES = " UNION ALL ".join(
    f"SELECT {one.column} FROM {one.part.table} WHERE email_id = ANY(%(ids)s) AND {one.column} IS NOT NULL"
    for one in ADDRESSES.values()
)


class BulkDeletion:
    """The deletion of the contacts with the addresses of a list, batch by batch, as parts of one erasure."""

    def __init__(self, request: ErasureRequest) -> None:
        self._order = request
        self._others: set[UUID] = set()

    @property
    def also_known_in(self) -> int:
        """The number of other contacts, in the recorded batches, that have an address as their account address."""
        return len(self._others)

    def erase(self, connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        """Erase the contacts with the addresses of a batch."""
        request = self._order
        addresses = [item.address or "" for item in items]
        lock_addresses_to_forget(connection, request, addresses)
        if request.include_fxa:  # all at once, sorted: the locks below then find each contact locked
            removal.lock_ids(connection, _anybody(connection, addresses))
        found = removal.lock_addresses(connection, addresses)
        own = {one.email_id for of_address in found.values() for one in of_address}
        others: Mapping[int, Sequence[UUID]] = {}
        if request.include_fxa:
            for position, carriers in accounts.lock(connection, addresses, own).items():
                found[position] = [*found.get(position, ()), *carriers]
        else:
            others = accounts.find(connection, addresses, own)
        contacts = {one.email_id: one for of_address in found.values() for one in of_address}
        had = _parts(connection, list(contacts))
        # A contact that an earlier batch counted and this one erases no longer counts.
        also = len({one for ids in others.values() for one in ids} - self._others) - len(self._others & contacts.keys())
        before = find_erased(connection, _others(addresses, found), addresses_of(contacts.values()), contacts)
        unknown = len(items) - len(found) - len(before)
        erase(connection, request, list(contacts.values()), unknown=unknown, also_known_in=also, addresses=addresses)
        ids = {position: [one.email_id for one in of_address] for position, of_address in found.items()}
        return _outcomes(items, ERASED, found=ids, others=others, had=had, before=before)

    def preview(self, connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        """Return the outcomes for a batch without changing anything."""
        addresses = [item.address or "" for item in items]
        found: dict[int, list[UUID]] = defaultdict(list)
        known = [position for position, item in enumerate(items) if item.known]
        if known:
            asked = expand_spellings(addresses[position] for position in known)
            for number, email_id in connection.execute(_FIND, asked).fetchall():
                found[known[number]].append(email_id)
        others = accounts.find(connection, addresses, {email_id for ids in found.values() for email_id in ids})
        if self._order.include_fxa:
            for position, ids in others.items():
                found[position] += ids
            others = {}
        had = _parts(connection, {email_id for ids in found.values() for email_id in ids})
        erased = [email_id for ids in found.values() for email_id in ids]
        own = [one for (one,) in connection.execute(_ADDRESSES, {"ids": erased}).fetchall()]
        before = find_erased(connection, _others(addresses, found), own, erased)
        return _outcomes(items, FOUND, found=found, others=others, had=had, before=before)

    def report(self, outcomes: Iterable[ItemOutcome]) -> None:
        """Record the outcomes of a batch after its commit."""
        outcomes = list(outcomes)
        self._others |= {email_id for one in outcomes for email_id in one.also_known_in}
        self._others -= {one.email_id for one in outcomes if one.email_id}


def _anybody(connection: Connection, addresses: Sequence[str]) -> set[UUID]:
    """Return the ids of the contacts that have one of the addresses as their own or account address."""
    own = {email_id for _, email_id in connection.execute(_FIND, expand_spellings(addresses)).fetchall()}
    return own.union(*accounts.find(connection, addresses, own).values())


def _others(addresses: Sequence[str], found: Mapping[int, Any]) -> list[str]:
    """Return the addresses without a contact."""
    return [address for position, address in enumerate(addresses) if position not in found]


def _outcomes(
    items: Sequence[WorkItem],
    outcome: str,
    *,
    found: Mapping[int, Sequence[UUID]],
    others: Mapping[int, Sequence[UUID]],
    had: Mapping[UUID, tuple[bool, bool]],
    before: Container[str | None],
) -> list[ItemOutcome]:
    """Return `outcome` for each contact `found` by the position of its address, and outcomes of other addresses.

    `before` are addresses that were erased before.
    """
    outcomes = []
    for position, item in enumerate(items):
        also = tuple(others.get(position, ()))  # once for each address
        if ids := found.get(position):
            first, *further = ids
            outcomes.append(ItemOutcome(item, outcome, first, *had[first], also_known_in=also))
            outcomes += [ItemOutcome(item, outcome, email_id, *had[email_id]) for email_id in further]
        else:
            nobody = ERASED_BEFORE if item.address in before else UNKNOWN
            outcomes.append(ItemOutcome(item, nobody, also_known_in=also))
    return outcomes


def _parts(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, tuple[bool, bool]]:
    """Return, by contact, whether it has `fxa` and `mofo`."""
    rows = set(connection.execute(_PARTS, {"ids": list(email_ids)}).fetchall())
    return {email_id: ((email_id, True) in rows, (email_id, False) in rows) for email_id in email_ids}
