"""Lock and delete contacts. Their identities are read after the lock, so that they are the final ones.

As in `commands`, everything runs on the caller's connection, inside the caller's transaction. Contacts are locked in
the order of their ids, which prevents deadlocks between transactions that delete many.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from ctms.addresses import expand_spellings, match_condition, spellings
from ctms.contacts.documents import FROM_CONTACT, IDENTITY
from ctms.contacts.registry import ADDRESSES, IDENTITIES
from ctms.database.pool import Connection


class LockedContact(NamedTuple):
    """A locked contact: its id, the addresses that it has by the name of the identity, and its identities as JSON."""

    email_id: UUID
    addresses: Mapping[str, str]
    identities: str

    @classmethod
    def from_row(cls, email_id: UUID, *columns: str) -> LockedContact:
        """Return the contact in a row of `_COLUMNS`."""
        *found, identities = columns
        return cls(
            email_id, {name: address for name, address in zip(ADDRESSES, found, strict=True) if address}, identities
        )


_COLUMNS = ", ".join(("e.email_id", *(one.sql for one in ADDRESSES.values()), IDENTITY))

_LOCK_BY_IDS = "SELECT email_id FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR UPDATE"
_READ_BY_IDS = f"SELECT {_COLUMNS} FROM emails e {FROM_CONTACT} WHERE e.email_id = ANY(%s) ORDER BY e.email_id"

# Most spellings differ in case only, for databases whose locale maps ASCII only; `lower` makes them equal.
_MATCH_ADDRESS = {
    name: f"""
        SELECT g.position, t.email_id
        FROM (
            SELECT DISTINCT position, lower(address) AS address
            FROM unnest(%s::int[], %s::text[]) AS s (position, address)
        ) g
        JOIN {one.part.table} t ON lower(t.{one.column}) = g.address"""
    for name, one in ADDRESSES.items()
}

DELETE_BY_IDS = "DELETE FROM emails WHERE email_id = ANY(%s)"


@cache
def lock_by_address_sql(count: int) -> str:
    """Return the statement that locks the contacts with an address in one of `count` spellings."""
    # Ordered by id, because an adopted database may hold two contacts with the address.
    return f"SELECT FROM emails WHERE {match_condition('primary_email', count)} ORDER BY email_id FOR UPDATE"


@cache
def read_by_address_sql(count: int) -> str:
    """Return the statement that reads the contacts after they are locked.

    A single statement that waits for the lock would see the new row of `emails`, but old rows of the other tables.
    """
    return f"""
        SELECT {_COLUMNS} FROM emails e {FROM_CONTACT}
        WHERE {match_condition("e.primary_email", count)} ORDER BY e.email_id FOR UPDATE OF e"""


def lock_address(connection: Connection, address: str) -> list[LockedContact]:
    """Lock and return the contacts with the address, in any spelling; one round trip in pipeline mode."""
    spelt = spellings(address)
    connection.execute(lock_by_address_sql(len(spelt)), spelt)
    return [
        LockedContact.from_row(*row) for row in connection.execute(read_by_address_sql(len(spelt)), spelt).fetchall()
    ]


def lock_addresses(connection: Connection, addresses: Sequence[str]) -> dict[int, list[LockedContact]]:
    """Lock the contacts with the addresses, in any spelling, and return them by the position of their address."""
    spelt = expand_spellings(addresses)

    def find() -> dict[int, set[UUID]]:
        return _by_position(connection.execute(_MATCH_ADDRESS["primary_email"], spelt).fetchall())

    return lock_found(connection, find)


def lock_ids(connection: Connection, email_ids: Collection[UUID]) -> list[LockedContact]:
    """Lock the existing contacts among these, and return them in the order of their ids."""
    locked = [email_id for (email_id,) in connection.execute(_LOCK_BY_IDS, (list(email_ids),)).fetchall()]
    if not locked:
        return []
    return [LockedContact.from_row(*row) for row in connection.execute(_READ_BY_IDS, (locked,)).fetchall()]


def lock_matching(connection: Connection, wanted: Sequence[Mapping[str, Any]]) -> list[list[LockedContact]]:
    """Lock the contacts that match all identities of an entry of `wanted`, and return the matches of each entry."""
    locked = lock_found(connection, lambda: dict(enumerate(_matching(connection, wanted))))
    return [locked.get(position, []) for position in range(len(wanted))]


def lock_found(
    connection: Connection, find: Callable[[], Mapping[int, Collection[UUID]]]
) -> dict[int, list[LockedContact]]:
    """Lock the contacts that `find` returns by position, until it returns no others, and return what it found last.

    While a lock is awaited, contacts change: a merge, for one, moves what was looked for to another contact.
    """
    asked: set[UUID] = set()
    locked: dict[UUID, LockedContact] = {}
    while others := set().union(*(found := find()).values()) - asked:
        asked |= others
        locked |= {one.email_id: one for one in lock_ids(connection, others)}
    still = {position: sorted(locked.keys() & email_ids) for position, email_ids in found.items()}
    return {position: [locked[one] for one in email_ids] for position, email_ids in still.items() if email_ids}


def delete(connection: Connection, found: Sequence[LockedContact]) -> None:
    """Delete all data of the locked contacts."""
    connection.execute(DELETE_BY_IDS, ([one.email_id for one in found],))


def _matching(connection: Connection, wanted: Sequence[Mapping[str, Any]]) -> list[set[UUID]]:
    """Return the ids of the contacts that match each entry of `wanted`.

    Entries with the same identities share a statement. Each identity that is an address has a statement of its own:
    the spellings of two addresses in one statement would multiply.
    """
    matching: list[set[UUID] | None] = [None] * len(wanted)
    for names, positions in _by_names(wanted, lambda name: name not in ADDRESSES).items():
        values = [[str(wanted[position][name]) for position in positions] for name in names]
        _intersect(matching, positions, connection.execute(_match(names), [positions, *values]).fetchall())
    for names, positions in _by_names(wanted, ADDRESSES.__contains__).items():
        for name in names:
            numbers, spelt = expand_spellings(wanted[position][name] for position in positions)
            rows = connection.execute(_MATCH_ADDRESS[name], (numbers, spelt)).fetchall()
            _intersect(matching, positions, [(positions[number], email_id) for number, email_id in rows])
    return [found or set() for found in matching]


def _by_names(
    wanted: Sequence[Mapping[str, Any]], is_chosen: Callable[[str], bool]
) -> dict[tuple[str, ...], list[int]]:
    """Group the positions of the entries by which chosen identities they have; omit entries without any."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, identities in enumerate(wanted):
        if names := tuple(sorted(filter(is_chosen, identities))):
            found[names].append(position)
    return found


def _by_position(rows: Iterable[tuple[int, UUID]]) -> dict[int, set[UUID]]:
    found: dict[int, set[UUID]] = defaultdict(set)
    for position, email_id in rows:
        found[position].add(email_id)
    return found


def _intersect(matching: list[set[UUID] | None], positions: Iterable[int], rows: Iterable[tuple[int, UUID]]) -> None:
    """Restrict the matches so far at each of the positions to the ids in the rows (position, id)."""
    found = _by_position(rows)
    for position in positions:
        before = matching[position]
        matching[position] = found[position] if before is None else before & found[position]


@cache
def _match(names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    arrays = ", ".join(["%s::text[]"] * len(names))
    conditions = " AND ".join(
        f"{IDENTITIES[name].sql} = g.{name}{'::uuid' if IDENTITIES[name].has_uuid_column else ''}" for name in names
    )
    # OFFSET 0 keeps the subquery separate, so that each entry is an index look-up, however large the tables are.
    return f"""
        SELECT g.position, c.email_id FROM unnest(%s::int[], {arrays}) AS g (position, {columns}),
            LATERAL (SELECT e.email_id FROM emails e {FROM_CONTACT} WHERE {conditions} OFFSET 0) c"""
