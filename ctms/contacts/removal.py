"""Deleting contacts: who they are is read once they are locked, so that what is told of them is the last there was.

As with `commands`, all happens on the caller's connection, inside the caller's transaction. Contacts are locked in the
order of their ids: two who delete many at once wait for each other in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple
from uuid import UUID

from ctms.addresses import matches, spell_out, spellings
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

DELETE_CONTACTS = "DELETE FROM emails WHERE email_id = ANY(%s)"


@cache
def lock_by_address(count: int) -> str:
    """Return the statement that locks the contacts with an address in one of `count` spellings."""
    # In the order of their ids: an adopted database may hold two.
    return f"SELECT FROM emails WHERE {matches('primary_email', count)} ORDER BY email_id FOR UPDATE"


@cache
def read_by_address(count: int) -> str:
    """Return the statement that reads them.

    Not the one that locks: a statement that had to wait has the new row of `emails`, and the others of before.
    """
    return f"""
        SELECT {_COLUMNS} FROM emails e {FROM_CONTACT}
        WHERE {matches("e.primary_email", count)} ORDER BY e.email_id FOR UPDATE OF e"""


def lock_address(connection: Connection, address: str) -> list[Found]:
    """Lock the contacts with the address, in any spelling; one round trip in pipeline mode."""
    spelt = spellings(address)
    connection.execute(lock_by_address(len(spelt)), spelt)
    return [Found(*row) for row in connection.execute(read_by_address(len(spelt)), spelt).fetchall()]


def lock_addresses(connection: Connection, addresses: Sequence[str]) -> dict[int, list[Found]]:
    """Lock the contacts with the addresses, in any spelling; returns whom the address at each position names."""
    positions, spelt = spell_out(addresses)
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
    connection.execute(DELETE_CONTACTS, ([one.email_id for one in found],))


def _matching(connection: Connection, wanted: Sequence[Mapping[str, Any]]) -> list[set[UUID]]:
    """Return the ids of who matches each of `wanted`: one question for all that name the same identities."""
    matching: list[set[UUID]] = [set() for _ in wanted]
    by_names: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for position, identities in enumerate(wanted):
        by_names[tuple(sorted(identities))].append(position)
    for names, positions in by_names.items():
        rows = [(position, *values) for position in positions for values in _spelt(wanted[position], names)]
        columns = [list(column) for column in zip(*rows, strict=True)]
        for position, email_id in connection.execute(_match(names), columns).fetchall():
            matching[position].add(email_id)
    return matching


def _spelt(identities: Mapping[str, Any], names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Give the values of the identities `names`, once for each spelling of an address among them."""
    values = (spellings(identities[name]) if name in ADDRESSES else (str(identities[name]),) for name in names)
    return product(*values)


@cache
def _match(names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    arrays = ", ".join(["%s::text[]"] * len(names))
    conditions = " AND ".join(_equals(name) for name in names)
    # OFFSET 0 keeps it a question for each, which the indexes answer, however large the tables.
    return f"""
        SELECT g.position, c.email_id FROM unnest(%s::int[], {arrays}) AS g (position, {columns}),
            LATERAL (SELECT e.email_id FROM emails e {FROM_CONTACT} WHERE {conditions} OFFSET 0) c"""


def _equals(name: str) -> str:
    if name in ADDRESSES:
        return f"lower({IDENTITIES[name]}) = lower(g.{name})"
    return f"{IDENTITIES[name]} = g.{name}{'::uuid' if name == 'email_id' else ''}"
