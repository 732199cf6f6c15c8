"""Opt out many contacts at once, by their addresses.

As in `commands`, everything runs on the caller's connection, inside the caller's transaction. Contacts are locked in
the order of their ids, which prevents deadlocks between transactions that write many.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ctms.addresses import expand_spellings
from ctms.contacts.registry import ADDRESSES
from ctms.database.pool import Connection
from ctms.outbox.changes import outbox


class OptOut(NamedTuple):
    """An opt-out from mail by the owner of an address, with its time (`at`) and `reason`, if known."""

    address: str
    at: datetime | None
    reason: str | None


class OptOutMatch(NamedTuple):
    """A contact with the address of the opt-out at `position`; `new` if that opt-out changed it."""

    position: int
    email_id: UUID
    new: bool


# One query for each index.
_MATCH = " UNION ".join(
    f"""
    SELECT g.position, {one.part.alias}.email_id
    FROM unnest(%(positions)b::int[], %(spellings)b::text[]) AS g (position, address)
    JOIN {one.part.table} {one.part.alias} ON lower({one.sql}) = lower(g.address)"""
    for one in ADDRESSES.values()
)

_STATES = "SELECT email_id, has_opted_out_of_email IS TRUE FROM emails WHERE email_id = ANY(%s)"

_LOCK = "SELECT FROM emails WHERE email_id = ANY(%b) ORDER BY email_id FOR NO KEY UPDATE"

_OPT_OUT = """
    UPDATE emails e SET has_opted_out_of_email = true, unsubscribe_reason = coalesce(g.reason, e.unsubscribe_reason),
        update_timestamp = clock_timestamp()
    FROM unnest(%b::uuid[], %b::text[]) AS g (email_id, reason)
    WHERE e.email_id = g.email_id AND e.has_opted_out_of_email IS NOT TRUE
    RETURNING e.email_id"""


def opt_out(connection: Connection, wanted: Sequence[OptOut]) -> list[OptOutMatch]:
    """Opt out the contacts that have one of the addresses as their own or as their account's, in any spelling.

    If several opt-outs match a contact, the latest gives the reason, or the first of several at the same time. A
    contact that has already opted out is unchanged. Returns all matches.
    """
    matched = _match(connection, wanted)
    if not matched:
        return []
    latest: dict[UUID, int] = {}
    for position, email_id in matched:
        latest[email_id] = max(latest.get(email_id, position), position, key=lambda place: _order(wanted, place))
    connection.execute(_LOCK, (list(latest),))
    reasons = [wanted[position].reason for position in latest.values()]
    changed = {email_id for (email_id,) in connection.execute(_OPT_OUT, (list(latest), reasons)).fetchall()}
    outbox().changed(connection, changed)
    return [
        OptOutMatch(position, email_id, email_id in changed and latest[email_id] == position)
        for position, email_id in sorted(matched)
    ]


def preview(connection: Connection, wanted: Sequence[OptOut]) -> list[OptOutMatch]:
    """Return the result that `opt_out` would have, without changing anything."""
    matched = _match(connection, wanted)
    before: dict[UUID, bool] = dict(connection.execute(_STATES, ([email_id for _, email_id in matched],)).fetchall())
    return [OptOutMatch(position, email_id, not before.get(email_id)) for position, email_id in sorted(matched)]


def _match(connection: Connection, wanted: Sequence[OptOut]) -> list[tuple[int, UUID]]:
    """Return the positions of the opt-outs, from 0, with the ids of the contacts that match them."""
    positions, spelt = expand_spellings(one.address for one in wanted)
    return connection.execute(_MATCH, {"positions": positions, "spellings": spelt}).fetchall()


def _order(wanted: Sequence[OptOut], position: int) -> tuple[float, int]:
    at = wanted[position].at
    return (at.timestamp() if at else float("-inf"), -position)
