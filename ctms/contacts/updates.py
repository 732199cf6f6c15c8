"""Pages of changed contacts, and of deletions in the same order, for clients that mirror contacts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ctms.contacts.documents import DOCUMENT, FROM_CONTACT
from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.history.deletions import require_recorded
from ctms.history.feeds import Position, find_horizon
from ctms.history.models import MofoRelevanceChange, Tombstone

_IS_RELEVANT = "EXISTS (SELECT FROM mofo WHERE mofo.email_id = {alias}.email_id AND mofo.mofo_relevant)"

CHANGED = "changed"
DELETED = "deleted"
LEFT = "left"

_DOCUMENTS = {
    CHANGED: f"(SELECT {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE e.email_id = p.email_id)",
    DELETED: f"""(SELECT row_to_json(j)::text FROM (
        SELECT p.email_id, {timestamp("p.moment")} AS deleted_at, p.merged_into) j)""",
    LEFT: f"""(SELECT row_to_json(j)::text FROM (
        SELECT p.email_id, {timestamp("p.moment")} AS left_at) j)""",
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
) -> Page:
    """Return up to `limit` contacts that changed in `[start, end)`, after the position `after`, by time and id.

    The page's `end` is at most the `settled` instant, and equal to it when `end` is None.
    """
    until, end = find_horizon(connection, start, end, after)
    where, values = _between("e", "update_timestamp", start, end, after)
    rows = connection.execute(
        f"SELECT {CHANGED!r}, {DOCUMENT}, e.update_timestamp, e.email_id"
        f" FROM (SELECT * FROM emails e WHERE {where}{_filter('e', mofo_relevant)}"
        f" ORDER BY e.update_timestamp, e.email_id LIMIT %(count)s) e {FROM_CONTACT}"
        " ORDER BY e.update_timestamp, e.email_id",
        {**values, "count": limit + 1},
    ).fetchall()
    return _page(rows, limit, end, until)


def page_with_deletions(
    connection: Connection,
    *,
    start: datetime,
    end: datetime | None,
    limit: int,
    after: Position[UUID] | None,
    mofo_relevant: bool | None,
) -> Page:
    """Return a page as `page` does, cut from one sequence of changed, deleted and departed contacts.

    A contact is at most once in the sequence: it is changed if it exists and passes the filter, deleted if it does not
    exist, and departed if it exists and does not pass the filter any more. Raises `Gone` if deletions since `start` are
    no longer recorded.
    """
    until, end = find_horizon(connection, start, end, after)
    statement, values = statement_with_deletions(start, end, limit, after, mofo_relevant)
    rows = connection.execute(statement, values).fetchall()
    # Not before the page: a deletion that it lacks may have been purged since.
    require_recorded(connection, start)
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
            f"(SELECT {kind!r} AS kind, s.{column} AS moment, s.email_id, {merged_into} AS merged_into"
            f" FROM {table} s WHERE {where}{condition} ORDER BY s.{column}, s.email_id LIMIT %(count)s)"
        )
    documents = " ".join(f"WHEN {kind!r} THEN {_DOCUMENTS[kind]}" for kind, *_ in sources)
    statement = (
        f"SELECT p.kind, CASE p.kind {documents} END, p.moment, p.email_id"
        f" FROM ({' UNION ALL '.join(selects)} ORDER BY moment, email_id LIMIT %(count)s) p"
        " ORDER BY p.moment, p.email_id"
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
