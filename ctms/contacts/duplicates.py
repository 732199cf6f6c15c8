"""Find contacts that may be the same person, for `merging`: those that share an identity which is not unique.

Each identity is read in the order of its index, in ranges of values, so that memory and the duration of a statement do
not depend on the number of contacts. Addresses are compared in any spelling: the database finds those that differ in
case; the few with other spellings are looked up one by one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from ctms.addresses import expand_spellings
from ctms.contacts.parts import Identity
from ctms.contacts.registry import ADDRESSES, IDENTITIES
from ctms.contacts.unreachable_addresses import find_unusual, is_unusual
from ctms.database.pool import Connection

BATCH = 10_000
"""Number of values that one statement reads."""
MAX_LISTED = 100
"""Number of contacts that are listed of those that share a value."""


class Duplicates(NamedTuple):
    """Contacts that share a value of an identity: their number, and the first of them by id."""

    identity: str
    number: int
    email_ids: Sequence[UUID]


class Proposal(NamedTuple):
    """The contact to keep of some duplicates, and the reason."""

    target: UUID
    others: Sequence[UUID]
    reason: str


# The last value of a range, so that no value is divided between two ranges.
_BOUNDARY = """
    SELECT {value} FROM {table} {alias} WHERE {value} > %(last)s ORDER BY {value} OFFSET %(batch)s LIMIT 1"""
_SHARED = f"""
    SELECT v, count(*), (array_agg(email_id ORDER BY email_id))[:{MAX_LISTED}] FROM ({{members}}) m
    GROUP BY v HAVING count(*) > 1 ORDER BY v"""
_MEMBERS = "SELECT {value} AS v, {alias}.email_id FROM {table} {alias} WHERE {range}"
# OFFSET 0 makes each value an index look-up; a join could read all contacts for each range.
_OWNERS = """
    UNION
    SELECT {value}, own.email_id FROM {table} {alias},
        LATERAL (SELECT e.email_id FROM emails e WHERE lower(e.primary_email) = {value} OFFSET 0) own
    WHERE {range}"""

_SPELT = " UNION ALL ".join(
    f"""
    SELECT g.position, '{name}', t.email_id, t.{one.column}
    FROM (
        SELECT DISTINCT position, lower(address) AS address
        FROM unnest(%(positions)s::int[], %(spellings)s::text[]) AS s (position, address)
    ) g
    JOIN {one.part.table} t ON lower(t.{one.column}) = g.address"""
    for name, one in ADDRESSES.items()
)

_RANKS = """
    SELECT e.email_id, f.fxa_id IS NOT NULL AND f.account_deleted IS NOT TRUE, e.double_opt_in IS TRUE,
        e.update_timestamp
    FROM emails e LEFT JOIN fxa f ON f.email_id = e.email_id WHERE e.email_id = ANY(%s) ORDER BY e.email_id"""
_REASONS = ("has an account", "has a confirmed address", "changed last")


def find_duplicates(connection: Connection) -> Iterator[Duplicates]:
    """Yield all contacts that share a value of an identity, or an address in any spelling.

    Contacts may occur several times, with different identities. Contacts share an address also if it is the own address
    of one and the account address of another. Blank values do not count.
    """
    own, *others = ADDRESSES.values()
    for address in others:
        yield from _find_shared(connection, address, _MEMBERS + _OWNERS)
    for identity in (own, *others):
        yield from _find_spellings(connection, identity)
    for identity in IDENTITIES.values():
        if not identity.is_address and not identity.unique_constraints:
            yield from _find_shared(connection, identity, _MEMBERS)


def propose(connection: Connection, found: Duplicates) -> Proposal | None:
    """Return which contact to keep; None if fewer than two exist any more."""
    rows = connection.execute(_RANKS, (list(found.email_ids),)).fetchall()
    if len(rows) < 2:
        return None
    best, second, *_ = sorted(rows, key=lambda row: row[1:], reverse=True)
    differing = (reason for reason, one, other in zip(_REASONS, best[1:], second[1:], strict=True) if one != other)
    reason = next(differing, "first by id")
    return Proposal(best[0], [email_id for email_id, *_ in rows if email_id != best[0]], reason)


def _find_shared(connection: Connection, identity: Identity, members: str) -> Iterator[Duplicates]:
    value = f"lower({identity.sql})" if identity.is_address else identity.sql
    names = {"value": value, "table": identity.part.table, "alias": identity.part.alias}
    parameters: dict[str, Any] = {"last": "", "batch": BATCH, "boundary": ""}
    while parameters["boundary"] is not None:
        row = connection.execute(_BOUNDARY.format(**names), parameters).fetchone()
        parameters["boundary"] = row[0] if row else None
        names["range"] = f"{value} > %(last)s" + (f" AND {value} <= %(boundary)s" if row else "")
        shared = _SHARED.format(members=members.format(**names))
        for _, number, email_ids in connection.execute(shared, parameters).fetchall():
            yield Duplicates(identity.name, number, email_ids)
        parameters["last"] = parameters["boundary"]


def _find_spellings(connection: Connection, identity: Identity) -> Iterator[Duplicates]:
    """Yield contacts with an address in different spellings, at least one of which is this unusual identity.

    They are yielded once: with the first unusual identity of the first contact that has one.
    """
    order = list(ADDRESSES)
    for rows in find_unusual(connection, identity):
        positions, spelt = expand_spellings(address for _, address in rows)
        found: dict[int, list[tuple[int, UUID, str]]] = defaultdict(list)
        parameters = {"positions": positions, "spellings": spelt}
        for position, name, email_id, address in connection.execute(_SPELT, parameters).fetchall():
            found[position].append((order.index(name), email_id, address))
        for position, members in found.items():
            email_ids = sorted({email_id for _, email_id, _ in members})
            first = min((number, email_id) for number, email_id, address in members if is_unusual(address))
            is_first = first == (order.index(identity.name), rows[position][0])
            if is_first and len(email_ids) > 1 and len({address.lower() for *_, address in members}) > 1:
                yield Duplicates(identity.name, len(email_ids), email_ids[:MAX_LISTED])
