"""Queries for contacts. All results are JSON text that the database renders (`documents`)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

from ctms.contacts.documents import DOCUMENT, FROM_CONTACT, IDENTITY
from ctms.contacts.registry import IDENTITIES
from ctms.database.pool import Connection, Cursor, ScalarQuery

_ONE = f"SELECT {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE e.email_id = %s"
_SEVERAL = f"SELECT e.email_id, {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE e.email_id = ANY(%s)"
_IDENTITY = f"SELECT {IDENTITY} FROM emails e {FROM_CONTACT} WHERE e.email_id = %s"

# As the planner estimates it: rows per page at the last ANALYZE, times the current number of pages. A table that was
# never analysed has no such figure; then the statistics of inserts and deletes are used.
_ESTIMATE = """
    SELECT CASE WHEN relpages > 0
        THEN round(greatest(reltuples, 0)::float8 / relpages
            * (pg_relation_size(oid) / current_setting('block_size')::int))::bigint
        ELSE pg_stat_get_live_tuples(oid)
    END
    FROM pg_class WHERE oid = 'emails'::regclass"""


def document(email_id: UUID) -> ScalarQuery:
    """Return the query for the document of one contact."""
    return ScalarQuery(_ONE, (email_id,))


def documents_by_id(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the documents of the existing contacts among these."""
    return dict(connection.execute(_SEVERAL, (list(email_ids),)).fetchall())


def identity(email_id: UUID) -> ScalarQuery:
    """Return the query for the identities of one contact, a JSON object."""
    return ScalarQuery(_IDENTITY, (email_id,))


def documents(identities: Mapping[str, Any]) -> ScalarQuery:
    """Return the query for the contacts that match all of `identities` (name: value), a JSON array of documents."""
    return _find(DOCUMENT, identities)


def identities_of(identities: Mapping[str, Any]) -> ScalarQuery:
    """Return the query for the identities of the contacts that match all of `identities`, a JSON array of objects."""
    return _find(IDENTITY, identities)


def _find(what: str, identities: Mapping[str, Any]) -> ScalarQuery:
    conditions: list[tuple[str, int]] = []
    values: list[Any] = []
    for name, value in identities.items():
        found = IDENTITIES[name].expand_value(value)
        conditions.append((name, len(found)))
        values += found
    return ScalarQuery(_statement(what, tuple(conditions)), values)


@cache
def _statement(what: str, wanted: tuple[tuple[str, int], ...]) -> str:
    """Return the statement for identities, each with the number of its values, which are spellings for an address."""
    conditions = " AND ".join(IDENTITIES[name].match_condition(count) for name, count in wanted)
    return (
        f"SELECT '[' || coalesce(string_agg({what}, ',' ORDER BY e.create_timestamp, e.email_id), '') || ']'"
        f" FROM emails e {FROM_CONTACT} WHERE {conditions}"
    )


@dataclass(frozen=True)
class Position:
    """A position in the order of `/updates`: after the contact `email_id` that changed at `update_timestamp`.

    All changes before `settled` were committed when the previous page was read. So all pages of a traversal end at
    the same instant, even if a transaction has started to write since.
    """

    update_timestamp: datetime
    email_id: UUID
    settled: datetime

    def to_cursor(self) -> str:
        """Return the position as an opaque, URL-safe text for clients to send back."""
        text = json.dumps([self.update_timestamp.isoformat(), str(self.email_id), self.settled.isoformat()])
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def from_cursor(cls, cursor: str) -> Position:
        """Parse a cursor. Raises `ValueError` when it is not valid."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            moment, email_id, settled = json.loads(raw)
            position = cls(datetime.fromisoformat(moment), UUID(email_id), datetime.fromisoformat(settled))
        except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
            raise ValueError("not a cursor") from error
        if position.update_timestamp.tzinfo is None or position.settled.tzinfo is None:
            raise ValueError("not a cursor")
        return position


@dataclass(frozen=True)
class Page:
    """A page of changed contacts, oldest first: their documents, the end of the range, the next page's position."""

    documents: list[str]
    end: datetime
    after: Position | None


# The instant before which the order of changes is final. A transaction that is still writing will commit timestamps
# later than its start; a reader past that instant would never see them. Writers of contacts hold RowExclusiveLock on
# `emails` before they read the clock (docs/decisions/003-updates-miss-nothing.md). The start of a writer with another
# database role is not visible, and is assumed to be a minute ago.
_SETTLED = """
    SELECT least(
        statement_timestamp(),
        min(coalesce(writer.xact_start, statement_timestamp() - interval '1 minute')))
    FROM pg_locks l JOIN pg_stat_activity writer USING (pid)
    WHERE l.locktype = 'relation' AND l.relation = 'emails'::regclass AND l.mode = 'RowExclusiveLock'
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND l.pid <> pg_backend_pid()"""


def estimate_contacts(connection: Connection) -> int:
    """Return the approximate number of contacts from the database's statistics, without reading the table."""
    row = connection.execute(_ESTIMATE).fetchone()
    return row[0] if row else 0


def settled(connection: Connection) -> Cursor:
    """Query the instant before which all changes are committed: one row, by the database's clock.

    Run it in a separate statement before the page, because the page's snapshot must be newer than its result.
    """
    return connection.execute(_SETTLED)


def page(
    connection: Connection,
    *,
    start: datetime,
    end: datetime | None,
    limit: int,
    after: Position | None,
    mofo_relevant: bool | None,
) -> Page:
    """Return up to `limit` contacts that changed in `[start, end)`, after the position `after`, by time and id.

    The page's `end` is at most the `settled` instant, and equal to it when `end` is None.
    """
    row = settled(connection).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    until = max(row[0], after.settled) if after else row[0]
    end = min(end, until) if end else until
    where = ["e.update_timestamp >= %s", "e.update_timestamp < %s"]
    values: list[Any] = [start, end]
    if after is not None:
        where.append("(e.update_timestamp, e.email_id) > (%s, %s)")
        values += [after.update_timestamp, after.email_id]
    if mofo_relevant is not None:
        where.append(
            f"{'' if mofo_relevant else 'NOT'} EXISTS"
            " (SELECT FROM mofo WHERE mofo.email_id = e.email_id AND mofo.mofo_relevant)"
        )
    rows = connection.execute(
        f"SELECT {DOCUMENT}, e.update_timestamp, e.email_id"
        f" FROM (SELECT * FROM emails e WHERE {' AND '.join(where)}"
        f" ORDER BY e.update_timestamp, e.email_id LIMIT %s) e {FROM_CONTACT}"
        " ORDER BY e.update_timestamp, e.email_id",
        [*values, limit + 1],
    ).fetchall()
    more = len(rows) > limit
    last = Position(rows[limit - 1][1], rows[limit - 1][2], until) if more else None
    return Page([row[0] for row in rows[:limit]], end, last)
