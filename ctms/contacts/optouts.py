"""Opting many contacts out at once, by their addresses.

As with `commands`, all happens on the caller's connection, inside the caller's transaction. Contacts are locked in the
order of their ids: two who write many at once wait for each other in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from ctms.addresses import expand_spellings
from ctms.outbox.changes import outbox
from ctms.pool import Connection


class OptOut(NamedTuple):
    """Who owns the address wants no mail, since `at` and for a `reason`, where these are known."""

    address: str
    at: datetime | None
    reason: str | None


class Matched(NamedTuple):
    """A contact with the address of the opt-out at `position`; `new` when that is what opted it out."""

    position: int
    email_id: UUID
    new: bool


# One question for each of the two indexes.
_MATCH = """
    SELECT g.position, e.email_id
    FROM unnest(%(positions)s::int[], %(spellings)s::text[]) AS g (position, address)
    JOIN emails e ON lower(e.primary_email) = lower(g.address)
    UNION
    SELECT g.position, f.email_id
    FROM unnest(%(positions)s::int[], %(spellings)s::text[]) AS g (position, address)
    JOIN fxa f ON lower(f.primary_email) = lower(g.address)"""

_STATES = "SELECT email_id, has_opted_out_of_email IS TRUE FROM emails WHERE email_id = ANY(%s)"

_LOCK = "SELECT FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR NO KEY UPDATE"

_OPT_OUT = """
    UPDATE emails e SET has_opted_out_of_email = true, unsubscribe_reason = coalesce(g.reason, e.unsubscribe_reason),
        update_timestamp = clock_timestamp()
    FROM unnest(%s::uuid[], %s::text[]) AS g (email_id, reason)
    WHERE e.email_id = g.email_id AND e.has_opted_out_of_email IS NOT TRUE
    RETURNING e.email_id"""


def opt_out(connection: Connection, wanted: Sequence[OptOut]) -> list[Matched]:
    """Opt out the contacts that have one of the addresses as their own or as their account's, in any spelling.

    For a contact with several, the latest opt-out gives the reason, of those at once the first here. Who is opted out
    already stays as it is. Returns all that match.
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
        Matched(position, email_id, email_id in changed and latest[email_id] == position)
        for position, email_id in sorted(matched)
    ]


def look(connection: Connection, wanted: Sequence[OptOut]) -> list[Matched]:
    """Return what `opt_out` would, and change nothing."""
    matched = _match(connection, wanted)
    before: dict[UUID, bool] = dict(connection.execute(_STATES, ([email_id for _, email_id in matched],)).fetchall())
    return [Matched(position, email_id, not before.get(email_id)) for position, email_id in sorted(matched)]


def _match(connection: Connection, wanted: Sequence[OptOut]) -> list[tuple[int, UUID]]:
    """Return the positions of opt-outs, from 0 on, and whose addresses theirs are."""
    positions, spelt = expand_spellings(one.address for one in wanted)
    return connection.execute(_MATCH, {"positions": positions, "spellings": spelt}).fetchall()


def _order(wanted: Sequence[OptOut], position: int) -> tuple[float, int]:
    at = wanted[position].at
    return (at.timestamp() if at else float("-inf"), -position)
