"""Deleting contacts: who they are is read once they are locked, so that what is told of them is the last there was.

As with `commands`, all happens on the caller's connection, inside the caller's transaction. Contacts are locked in the
order of their ids: two who delete many at once wait for each other in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from ctms.addresses import expand_spellings, match_condition, spellings
from ctms.contacts.documents import FROM_CONTACT, IDENTITY
from ctms.contacts.queries import ADDRESSES, IDENTITIES
from ctms.pool import Connection


class Found(NamedTuple):
    """A locked contact: its id, its addresses, and its nine identities as JSON text."""

    email_id: UUID
    primary_email: str
    fxa_primary_email: str | None
    identities: str


_COLUMNS = f"e.email_id, e.primary_email, f.primary_email, {IDENTITY}"

_LOCK_BY_ADDRESSES = """
    SELECT email_id FROM emails
    WHERE lower(primary_email) = ANY (ARRAY(SELECT lower(a) FROM unnest(%s::text[]) AS a))
    ORDER BY email_id FOR UPDATE"""
_READ_BY_ADDRESSES = f"""
    SELECT DISTINCT ON (g.position, e.email_id) g.position, {_COLUMNS}
    FROM emails e {FROM_CONTACT}
    JOIN unnest(%s::int[], %s::text[]) AS g (position, address) ON lower(g.address) = lower(e.primary_email)
    WHERE e.email_id = ANY(%s)"""

_LOCK_BY_IDS = "SELECT email_id FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR UPDATE"
_READ_BY_IDS = f"SELECT {_COLUMNS} FROM emails e {FROM_CONTACT} WHERE e.email_id = ANY(%s) ORDER BY e.email_id"

# `lower` makes one of most spellings: they differ in case, for databases whose locale maps that of ASCII only.
_MATCH_ADDRESS = {
    name: f"""
        SELECT g.position, t.email_id
        FROM (
            SELECT DISTINCT position, lower(address) AS address
            FROM unnest(%s::int[], %s::text[]) AS s (position, address)
        ) g
        JOIN {table} t ON lower(t.primary_email) = g.address"""
    for name, table in (("primary_email", "emails"), ("fxa_primary_email", "fxa"))
}

DELETE_BY_IDS = "DELETE FROM emails WHERE email_id = ANY(%s)"


@cache
def lock_by_address(count: int) -> str:
    """Return the statement that locks the contacts with an address in one of `count` spellings."""
    # In the order of their ids: an adopted database may hold two.
    return f"SELECT FROM emails WHERE {match_condition('primary_email', count)} ORDER BY email_id FOR UPDATE"


@cache
def read_by_address(count: int) -> str:
    """Return the statement that reads them.

    Not the one that locks: a statement that had to wait has the new row of `emails`, and the others of before.
    """
    return f"""
        SELECT {_COLUMNS} FROM emails e {FROM_CONTACT}
        WHERE {match_condition("e.primary_email", count)} ORDER BY e.email_id FOR UPDATE OF e"""


def lock_address(connection: Connection, address: str) -> list[Found]:
    """Lock the contacts with the address, in any spelling; one round trip in pipeline mode."""
    spelt = spellings(address)
    connection.execute(lock_by_address(len(spelt)), spelt)
    return [Found(*row) for row in connection.execute(read_by_address(len(spelt)), spelt).fetchall()]


def lock_addresses(connection: Connection, addresses: Sequence[str]) -> dict[int, list[Found]]:
    """Lock the contacts with the addresses, in any spelling; returns whom the address at each position names."""
    positions, spelt = expand_spellings(addresses)
    locked = [email_id for (email_id,) in connection.execute(_LOCK_BY_ADDRESSES, (spelt,)).fetchall()]
    found: dict[int, list[Found]] = defaultdict(list)
    if locked:
        for position, *row in connection.execute(_READ_BY_ADDRESSES, (positions, spelt, locked)).fetchall():
            found[position].append(Found(*row))
    return found


def lock_ids(connection: Connection, email_ids: Collection[UUID]) -> list[Found]:
    """Lock those of the contacts that there are, and return them in the order of their ids."""
    locked = [email_id for (email_id,) in connection.execute(_LOCK_BY_IDS, (list(email_ids),)).fetchall()]
    if not locked:
        return []
    return [Found(*row) for row in connection.execute(_READ_BY_IDS, (locked,)).fetchall()]


def lock_matching(connection: Connection, wanted: Sequence[Mapping[str, Any]]) -> list[list[Found]]:
    """Lock the contacts that match all identities of one of `wanted`; returns who matches each, none or several."""
    locked = {one.email_id: one for one in lock_ids(connection, set().union(*_matching(connection, wanted)))}
    # Asked again, as a contact that had to be waited for may have changed.
    return [[locked[email_id] for email_id in sorted(found & locked.keys())] for found in _matching(connection, wanted)]


def delete(connection: Connection, found: Sequence[Found]) -> None:
    """Delete everything about the locked contacts."""
    connection.execute(DELETE_BY_IDS, ([one.email_id for one in found],))


def _matching(connection: Connection, wanted: Sequence[Mapping[str, Any]]) -> list[set[UUID]]:
    """Return the ids of who matches each of `wanted`.

    One statement for all that name the same identities, and one for each identity that is an address: both spelt out
    together would be as many rows as the product of their spellings.
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
    """Return the positions of those that name the same of the chosen identities, by these; without those of none."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, identities in enumerate(wanted):
        if names := tuple(sorted(filter(is_chosen, identities))):
            found[names].append(position)
    return found


def _intersect(matching: list[set[UUID] | None], positions: Iterable[int], rows: Iterable[tuple[int, UUID]]) -> None:
    """Leave, of who matches so far at each of the positions, those in the rows (position, id)."""
    found: dict[int, set[UUID]] = defaultdict(set)
    for position, email_id in rows:
        found[position].add(email_id)
    for position in positions:
        before = matching[position]
        matching[position] = found[position] if before is None else before & found[position]


@cache
def _match(names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    arrays = ", ".join(["%s::text[]"] * len(names))
    conditions = " AND ".join(
        f"{IDENTITIES[name]} = g.{name}{'::uuid' if name == 'email_id' else ''}" for name in names
    )
    # OFFSET 0 keeps it a question for each, which the indexes answer, however large the tables.
    return f"""
        SELECT g.position, c.email_id FROM unnest(%s::int[], {arrays}) AS g (position, {columns}),
            LATERAL (SELECT e.email_id FROM emails e {FROM_CONTACT} WHERE {conditions} OFFSET 0) c"""
