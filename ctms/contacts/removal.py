"""Deleting contacts: who they are is read once they are locked, so that what is told of them is the last there was.

As with `commands`, all happens on the caller's connection, inside the caller's transaction. Contacts are locked in the
order of their ids: two who delete many at once wait for each other in turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ctms.contacts.documents import FROM_CONTACT, IDENTITY
from ctms.contacts.queries import IDENTITIES
from ctms.pool import Connection


class Found(NamedTuple):
    """A locked contact: its id, its addresses, and its nine identities as JSON text."""

    email_id: UUID
    primary_email: str
    fxa_primary_email: str | None
    identities: str


_COLUMNS = f"e.email_id, e.primary_email, f.primary_email, {IDENTITY}"

LOCK_BY_ADDRESS = "SELECT FROM emails WHERE lower(primary_email) = lower(%s) FOR UPDATE"

# Not the statement that locks: one that had to wait has the new row of `emails`, and the others of before.
READ_BY_ADDRESS = f"""
    SELECT {_COLUMNS} FROM emails e {FROM_CONTACT}
    WHERE lower(e.primary_email) = lower(%s) FOR UPDATE OF e"""

_LOCK_BY_ADDRESSES = """
    SELECT email_id FROM emails
    WHERE lower(primary_email) = ANY (ARRAY(SELECT lower(a) FROM unnest(%s::text[]) AS a))
    ORDER BY email_id FOR UPDATE"""
_READ_BY_ADDRESSES = f"""
    SELECT g.address, {_COLUMNS}
    FROM emails e {FROM_CONTACT} JOIN unnest(%s::text[]) AS g (address) ON lower(g.address) = lower(e.primary_email)
    WHERE e.email_id = ANY(%s)"""

_LOCK_BY_IDS = "SELECT email_id FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR UPDATE"
_READ_BY_IDS = f"SELECT {_COLUMNS} FROM emails e {FROM_CONTACT} WHERE e.email_id = ANY(%s) ORDER BY e.email_id"

DELETE_CONTACTS = "DELETE FROM emails WHERE email_id = ANY(%s)"


def lock_address(connection: Connection, address: str) -> list[Found]:
    """Lock the contact with the address, in any case; one round trip in pipeline mode."""
    connection.execute(LOCK_BY_ADDRESS, (address,))
    return [Found(*row) for row in connection.execute(READ_BY_ADDRESS, (address,)).fetchall()]


def lock_addresses(connection: Connection, addresses: Collection[str]) -> dict[str, Found]:
    """Lock the contacts with the addresses, in any case; returns who each address names, without those of nobody."""
    given = list(addresses)
    locked = [email_id for (email_id,) in connection.execute(_LOCK_BY_ADDRESSES, (given,)).fetchall()]
    if not locked:
        return {}
    return {row[0]: Found(*row[1:]) for row in connection.execute(_READ_BY_ADDRESSES, (given, locked)).fetchall()}


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
        values = [[str(wanted[position][name]) for position in positions] for name in names]
        for number, email_id in connection.execute(_match(names), values).fetchall():
            matching[positions[number - 1]].add(email_id)
    return matching


def _match(names: tuple[str, ...]) -> str:
    columns = ", ".join(names)
    arrays = ", ".join(["%s::text[]"] * len(names))
    conditions = " AND ".join(
        IDENTITIES[name].replace("%s", f"g.{name}" + ("::uuid" if name == "email_id" else "")) for name in names
    )
    # OFFSET 0 keeps it a question for each, which the indexes answer, however large the tables.
    return f"""
        SELECT g.number, c.email_id FROM unnest({arrays}) WITH ORDINALITY AS g ({columns}, number),
            LATERAL (SELECT e.email_id FROM emails e {FROM_CONTACT} WHERE {conditions} OFFSET 0) c"""
