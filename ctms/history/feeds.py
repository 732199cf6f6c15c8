"""The order of feeds, in which `/updates` and `/events` list changes, and the instant before which it is final."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from ctms.database.pool import Connection, Cursor

Id = TypeVar("Id", UUID, int)


@dataclass(frozen=True)
class Position(Generic[Id]):
    """A position in the order of a feed: after the item `id`, which changed at `moment`.

    All changes before `settled` were committed when the previous page was read. So all pages of a traversal end at
    the same instant, even if a transaction has started to write since.
    """

    moment: datetime
    id: Id
    settled: datetime

    def to_cursor(self) -> str:
        """Return the position as an opaque, URL-safe text for clients to send back."""
        id_ = str(self.id) if isinstance(self.id, UUID) else self.id
        text = json.dumps([self.moment.isoformat(), id_, self.settled.isoformat()])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def from_cursor(cls, cursor: str, kind: type[Id]) -> Position[Id]:
        """Parse a cursor of a feed with ids of this type. Raises `ValueError` when it is not valid."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            moment, id_, settled = json.loads(raw)
            position = Position(datetime.fromisoformat(moment), kind(id_), datetime.fromisoformat(settled))
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error) as error:
            raise ValueError("not a cursor") from error
        if position.moment.tzinfo is None or position.settled.tzinfo is None:
            raise ValueError("not a cursor")
        return position


# The instant before which the order of changes is final. A transaction that is still writing will commit timestamps
# later than its start; a reader past that instant would never see them. Writers hold RowExclusiveLock on `emails`, or
# on the table of a feed, before they read the clock (docs/decisions/003-updates-miss-nothing.md). The start of a writer
# with another database role is not visible, and is assumed to be a minute ago. A visible writer without a start has
# ended since its lock was read, so its changes are visible to the page. The locks of a prepared transaction have no
# process, and its start is not known: it is assumed to be a minute before it was prepared.
_SETTLED = """
    SELECT least(
        statement_timestamp(),
        min(CASE
            WHEN l.pid IS NULL THEN (
                SELECT min(prepared) - interval '1 minute' FROM pg_prepared_xacts WHERE database = current_database())
            WHEN coalesce(writer.state, 'disabled') = 'disabled' THEN
                coalesce(writer.xact_start, statement_timestamp() - interval '1 minute')
            ELSE writer.xact_start
        END)),
        statement_timestamp()
    FROM pg_locks l LEFT JOIN pg_stat_activity writer USING (pid)
    WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock'
      AND l.relation = ANY (ARRAY['emails', 'subscription_events', 'mofo_relevance_changes']::regclass[])
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND (l.pid IS NULL OR (writer.pid IS NOT NULL AND l.pid <> pg_backend_pid()))"""


def settled(connection: Connection) -> Cursor:
    """Query the instant before which all changes are committed, and now: one row, by the database's clock.

    Run it in a separate statement before the page, because the page's snapshot must be newer than its result.
    """
    return connection.execute(_SETTLED)


def find_horizon(
    connection: Connection, start: datetime, end: datetime | None, after: Position[Id] | None
) -> tuple[datetime, datetime]:
    """Return the settled instant of a page after the position `after`, and the page's end.

    The end is at most the settled instant, and equal to it when `end` is None. It is not before `start`, unless that is
    in the future: a transaction that was idle for long and now begins to write would otherwise send a follower back.
    """
    row = settled(connection).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    horizon, now = row
    until = max(horizon, min(start, now), after.settled if after else horizon)
    return until, min(end, until) if end else until
