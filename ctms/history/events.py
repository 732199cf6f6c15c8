"""Queries for the events of subscriptions: of one contact, and as a feed of all.

An event has a `kind`: `newsletter` and `waitlist`, with the `name` of the entry, `global_opt_out`, and `double_opt_in`.
Its `action` is `subscribed`, `unsubscribed`, `changed` (the state is the same, other values are not, or the client sent
new evidence), or `baseline` (the state at the beginning of the history). The events of a contact in their order give
its current subscriptions: `subscribed` is the state after each, None once the entry is removed. Without an event a
contact has not opted out, and its address is not confirmed. Events that a merge has moved keep their time and id; they
are followed by events of the merge where the subscriptions that they give would differ (`merges`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.history.feeds import Position, find_horizon
from ctms.history.models import SubscriptionEvent

NEWSLETTER = "newsletter"
WAITLIST = "waitlist"
GLOBAL_OPT_OUT = "global_opt_out"
DOUBLE_OPT_IN = "double_opt_in"
KINDS = (NEWSLETTER, WAITLIST, GLOBAL_OPT_OUT, DOUBLE_OPT_IN)

SUBSCRIBED = "subscribed"
UNSUBSCRIBED = "unsubscribed"
CHANGED = "changed"
BASELINE = "baseline"
ACTIONS = (SUBSCRIBED, UNSUBSCRIBED, CHANGED, BASELINE)

_TABLE = SubscriptionEvent.__tablename__

_EVENT = f"""
    (SELECT row_to_json(j)::text FROM (
        SELECT s.event_id, {timestamp("s.recorded_at")} AS recorded_at, s.email_id, s.kind, s.name, s.action,
            s.subscribed, s.source, s.reason, s.actor, s.request_id, s.evidence, s.merged_from) j)"""

_OF_CONTACTS = f"""
    SELECT s.email_id, {_EVENT} FROM {_TABLE} s WHERE s.email_id = ANY(%s)
    ORDER BY s.email_id, s.recorded_at, s.event_id"""


@dataclass(frozen=True)
class EventPage:
    """A page of events, oldest first: their documents, the end of the range, and the position of the next page."""

    documents: list[str]
    end: datetime
    after: Position[int] | None


def of_contacts(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, list[str]]:
    """Return the documents of all events of each contact, oldest first."""
    found: dict[UUID, list[str]] = {email_id: [] for email_id in email_ids}
    for email_id, document in connection.execute(_OF_CONTACTS, (list(email_ids),)).fetchall():
        found[email_id].append(document)
    return found


def history(connection: Connection, email_id: UUID, *, limit: int, after: Position[int] | None) -> EventPage:
    """Return up to `limit` events of a contact, after the position `after`.

    They are final as soon as they are visible: the writers of a contact take turns.
    """
    rows = _read(connection, "s.email_id = %s", [email_id], limit, after)
    last = rows[-1][1] if rows else datetime.min.replace(tzinfo=UTC)
    return _page(rows, limit, last, last)


def page(
    connection: Connection, *, start: datetime, end: datetime | None, limit: int, after: Position[int] | None
) -> EventPage:
    """Return up to `limit` events of all contacts recorded in `[start, end)`, after the position `after`.

    The page's `end` is at most the settled instant, and equal to it when `end` is None.
    """
    until, end = find_horizon(connection, start, end, after)
    rows = _read(connection, "s.recorded_at >= %s AND s.recorded_at < %s", [start, end], limit, after)
    return _page(rows, limit, end, until)


def _read(
    connection: Connection, condition: str, values: list[Any], limit: int, after: Position[int] | None
) -> list[Any]:
    """Return one row more than a page has, if there is one."""
    if after is not None:
        condition += " AND (s.recorded_at, s.event_id) > (%s, %s)"
        values = [*values, after.moment, after.id]
    return connection.execute(
        f"SELECT {_EVENT}, s.recorded_at, s.event_id FROM {_TABLE} s WHERE {condition}"
        " ORDER BY s.recorded_at, s.event_id LIMIT %s",
        [*values, limit + 1],
    ).fetchall()


def _page(rows: list[Any], limit: int, end: datetime, settled: datetime) -> EventPage:
    last = Position(rows[limit - 1][1], rows[limit - 1][2], settled) if len(rows) > limit else None
    return EventPage([document for document, *_ in rows[:limit]], end, last)
