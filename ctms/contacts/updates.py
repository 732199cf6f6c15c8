"""Pages of changed contacts, and of deletions in the same order, for clients that mirror contacts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ctms.contacts.stored_documents import contact_document
from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.database.replicas import read_replica
from ctms.history.deletions import require_recorded
from ctms.history.feeds import Position, find_horizon
from ctms.history.models import MofoRelevanceChange, Tombstone

_IS_RELEVANT = "EXISTS (SELECT FROM mofo WHERE mofo.email_id = {alias}.email_id AND mofo.mofo_relevant)"

CHANGED = "changed"
DELETED = "deleted"
LEFT = "left"

_DOCUMENTS = {
    DELETED: f"""(SELECT row_to_json(j)::text FROM (
        SELECT contact.email_id, {timestamp("contact.update_timestamp")} AS deleted_at, contact.merged_into) j)""",
    LEFT: f"""(SELECT row_to_json(j)::text FROM (
        SELECT contact.email_id, {timestamp("contact.update_timestamp")} AS left_at) j)""",
}


@dataclass(frozen=True)
class Page:
    """A page of changed contacts, oldest first: their documents, the end of the range, the next page's position.

    `deleted` and `left` are the documents of deletions, and of contacts that left the filter on `mofo_relevant`.
    """

    documents: list[str]
    end: datetime
    after: Position[UUID] | None
    deleted: list[str]
    left: list[str]


def page(
    connection: Connection,
    *,
    start: datetime,
    end: datetime | None,
    limit: int,
    after: Position[UUID] | None,
    mofo_relevant: bool | None,
    stale_ok: bool = False,
) -> Page:
    """Return up to `limit` contacts that changed in `[start, end)`, after the position `after`, by time and id.

    The page's `end` is at most the `settled` instant, and equal to it when `end` is None. With `stale_ok`, a replica
    may be read, which has all that was committed before this instant.
    """
    until, end = find_horizon(connection, start, end, after)
    where, values = _between("e", "update_timestamp", start, end, after)
    statement = (
        f"SELECT {CHANGED!r}, {contact_document()}, contact.update_timestamp, contact.email_id"
        f" FROM (SELECT * FROM emails e WHERE {where}{_filter('e', mofo_relevant)}"
        f" ORDER BY e.update_timestamp, e.email_id LIMIT %(count)s) contact"
        " ORDER BY contact.update_timestamp, contact.email_id"
    )

    def read(source: Connection) -> list[Any]:
        return source.execute(statement, {**values, "count": limit + 1}).fetchall()

    rows = read_replica(connection, read) if stale_ok else read(connection)
    return _page(rows, limit, end, until)


def page_with_deletions(
    connection: Connection,
    *,
    start: datetime,
    end: datetime | None,
    limit: int,
    after: Position[UUID] | None,
    mofo_relevant: bool | None,
    stale_ok: bool = False,
) -> Page:
    """Return a page as `page` does, cut from one sequence of changed, deleted and departed contacts.

    A contact is at most once in the sequence: it is changed if it exists and passes the filter, deleted if it does not
    exist, and departed if it exists and does not pass the filter any more. Raises `Gone` if deletions since `start` are
    no longer recorded.
    """
    until, end = find_horizon(connection, start, end, after)
    statement, values = statement_with_deletions(start, end, limit, after, mofo_relevant)

    def read(source: Connection) -> list[Any]:
        rows = source.execute(statement, values).fetchall()
        # Not before the page: a deletion that it lacks may have been purged since.
        require_recorded(source, start)
        return rows

    rows = read_replica(connection, read) if stale_ok else read(connection)
    return _page(rows, limit, end, until)


def statement_with_deletions(
    start: datetime, end: datetime, limit: int, after: Position[UUID] | None, mofo_relevant: bool | None
) -> tuple[str, dict[str, Any]]:
    """Return the statement of a page with deletions, and its values."""
    sources = [(CHANGED, "emails", "update_timestamp", "NULL::uuid", _filter("s", mofo_relevant))]
    sources.append((DELETED, Tombstone.__tablename__, "deleted_at", "s.merged_into", ""))
    if mofo_relevant is not None:
        departed = _filter("s", not mofo_relevant)
        sources.append((LEFT, MofoRelevanceChange.__tablename__, "changed_at", "NULL::uuid", departed))
    values: dict[str, Any] = {}
    selects = []
    for kind, table, column, merged_into, condition in sources:
        where, values = _between("s", column, start, end, after)
        selects.append(
            f"(SELECT {kind!r} AS kind, s.{column} AS update_timestamp, s.email_id, {merged_into} AS merged_into"
            f" FROM {table} s WHERE {where}{condition} ORDER BY s.{column}, s.email_id LIMIT %(count)s)"
        )
    rendered = {CHANGED: contact_document(), **_DOCUMENTS}
    documents = " ".join(f"WHEN {kind!r} THEN {rendered[kind]}" for kind, *_ in sources)
    statement = (
        f"SELECT contact.kind, CASE contact.kind {documents} END, contact.update_timestamp, contact.email_id"
        f" FROM ({' UNION ALL '.join(selects)} ORDER BY update_timestamp, email_id LIMIT %(count)s) contact"
        " ORDER BY contact.update_timestamp, contact.email_id"
    )
    return statement, {**values, "count": limit + 1}


def _between(
    alias: str, column: str, start: datetime, end: datetime, after: Position[UUID] | None
) -> tuple[str, dict[str, Any]]:
    """Return the condition for the rows of a source in `[start, end)` and after a position, and its values."""
    where = f"{alias}.{column} >= %(start)s AND {alias}.{column} < %(end)s"
    if after is None:
        return where, {"start": start, "end": end}
    return (
        f"{where} AND ({alias}.{column}, {alias}.email_id) > (%(moment)s, %(id)s)",
        {"start": start, "end": end, "moment": after.moment, "id": after.id},
    )


def _filter(alias: str, mofo_relevant: bool | None) -> str:
    if mofo_relevant is None:
        return ""
    return f" AND {'' if mofo_relevant else 'NOT '}{_IS_RELEVANT.format(alias=alias)}"


def _page(rows: list[Any], limit: int, end: datetime, settled: datetime) -> Page:
    last = Position(rows[limit - 1][2], rows[limit - 1][3], settled) if len(rows) > limit else None
    found: dict[str, list[str]] = {CHANGED: [], DELETED: [], LEFT: []}
    for kind, document, *_ in rows[:limit]:
        found[kind].append(document)
    return Page(found[CHANGED], end, last, found[DELETED], found[LEFT])
