"""Search: pages of the contacts that match a condition, in the order of their ids.

An id never changes, so a contact that matches throughout is on exactly one page, whatever is written meanwhile. A page
reads ids from the indexes that find the fewest, and looks at a limited number of contacts: with many that do not match,
it is short, and the next page continues behind them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from ctms.contacts.documents import FROM_CONTACT
from ctms.contacts.stored_documents import contact_document
from ctms.database.pool import Connection
from ctms.search.anchors import Chosen, bind, choose, scans
from ctms.search.conditions import MAX_SCANS, Condition, Place
from ctms.settings import app_settings

WINDOW = 5_000
"""Ids that a page reads from the indexes."""
MAX_EXACT = 100_000
"""Contacts that are counted; a higher number is estimated, and one that takes long to count."""
MAX_INDEX_SCANS = 2 * MAX_SCANS
"""Index scans of a condition: each value of a list is one."""

HINT = (
    "no index serves it: add a test for the name of a newsletter or waitlist, for mailing_country, email_lang,"
    " create_timestamp or update_timestamp, or that has_amo, has_fxa, has_mofo, account_deleted, mofo_relevant or"
    f" has_opted_out_of_email is true. A list counts if it has at most {MAX_SCANS} values; each condition of an or"
    " needs one, and not has none"
)
TOO_MANY = f"has too many values that indexes are asked for: use at most {MAX_INDEX_SCANS} in all"

# The ids are planned for the whole window, not for the limit: the planner expects that matches are spread evenly, and
# would walk all contacts for a few rare ones. They are still read on demand. LATERAL with OFFSET 0 looks contacts up
# one by one, each by its id alone, in the order of the ids, which a PostgreSQL before 17 sorts again. The last row is
# the end of the window, if the page is short because of it.
_PAGE = """
    WITH ids AS MATERIALIZED ({ids}),
    found AS MATERIALIZED (
        SELECT m.* FROM ids c, LATERAL (
            SELECT e.* FROM (SELECT e.* FROM emails e WHERE e.email_id = c.email_id OFFSET 0) e
            WHERE {where} OFFSET 0) m
        ORDER BY c.email_id LIMIT %s)
    SELECT {document}
    UNION ALL
    SELECT NULL, last.email_id FROM (SELECT c.email_id FROM ids c ORDER BY c.email_id OFFSET %s LIMIT 1) last
    WHERE (SELECT count(*) FROM found) < %s"""
_COUNT = "SELECT count(*) FROM (SELECT FROM {contacts} WHERE {where} LIMIT %s) counted"


class UnindexedError(ValueError):
    """No index serves the condition at the `place`."""

    def __init__(self, place: Place, problem: str) -> None:
        super().__init__(problem)
        self.place = place
        self.problem = problem


class Count(NamedTuple):
    """A number of contacts, and whether it is exact or the planner's estimate."""

    value: int
    exact: bool


@dataclass(frozen=True)
class Found:
    """A page: documents in the order of their ids, the position of the next page, and the count if requested."""

    documents: list[str]
    after: UUID | None
    count: Count | None


def search(
    connection: Connection,
    where: Condition,
    *,
    now: datetime,
    limit: int,
    after: UUID | None = None,
    document: str | None = None,
    count: bool = False,
    window: int = WINDOW,
) -> Found:
    """Return up to `limit` contacts that match, with ids behind `after`; ages count back from `now`.

    `document` is an SQL expression for a row `e`, with `FROM_CONTACT`; None: the whole document.

    Raises `UnindexedError` if that would take reading all contacts.
    """
    chosen = choose_scans(connection, where, now)
    number = _count(connection, where, chosen, now) if count else None
    sql, values = page_statement(where, chosen, now=now, limit=limit, after=after, document=document, window=window)
    # Never a generic plan, which ignores the values.
    rows = connection.execute(sql, values, prepare=False).fetchall()
    found = sorted((email_id, document) for document, email_id in rows if document is not None)
    window_end = next((email_id for document, email_id in rows if document is None), None)
    last = found[limit - 1][0] if len(found) > limit else window_end
    return Found([document for _, document in found[:limit]], last, number)


def page_statement(
    where: Condition,
    chosen: Chosen,
    *,
    now: datetime,
    limit: int,
    after: UUID | None,
    document: str | None,
    window: int,
) -> tuple[str, list[Any]]:
    """Return the statement of a page, and its parameters."""
    ids, of_ids = _first_ids(chosen, now, after, window)
    if document is None:
        documents = f"{contact_document()}, contact.email_id FROM found contact"
    else:
        documents = f"{document}, e.email_id FROM found e {FROM_CONTACT}"
    sql = _PAGE.format(ids=ids, where=where.sql, document=documents)
    return sql, [*of_ids, *where.bind(now), limit + 1, window - 1, limit + 1]


def count_statement(where: Condition, chosen: Chosen, now: datetime) -> tuple[str, list[Any]]:
    """Return the statement that counts up to one more than `MAX_EXACT` contacts, and its parameters.

    It sets out from the ids of the scans, unless several scans find so many that removing duplicates takes longest.
    """
    contacts, values = "emails e", []
    if len(chosen.scans) == 1 or chosen.estimate <= MAX_EXACT:
        ids = " UNION ".join(scan.sql for scan in chosen.scans)
        contacts = f"({ids}) c JOIN emails e ON e.email_id = c.email_id"
        values = [value for scan in chosen.scans for value in bind(scan.values, now)]
    return _COUNT.format(contacts=contacts, where=where.sql), [*values, *where.bind(now), MAX_EXACT + 1]


def _first_ids(chosen: Chosen, now: datetime, after: UUID | None, window: int) -> tuple[str, list[Any]]:
    """Return the query for the first ids behind a position, in order, and its parameters.

    Each scan has a limit of its own, with which the planner reads its index in order, and merges the scans.
    """
    start, of_start = ("", []) if after is None else ("WHERE i.email_id > %s ", [after])
    each = [f"(SELECT i.email_id FROM ({scan.sql}) i {start}ORDER BY i.email_id LIMIT %s)" for scan in chosen.scans]
    values = [value for scan in chosen.scans for value in (*bind(scan.values, now), *of_start, window)]
    if len(chosen.scans) == 1:
        return each[0], values
    ids = f"SELECT DISTINCT u.email_id FROM ({' UNION ALL '.join(each)}) u ORDER BY u.email_id LIMIT %s"
    return ids, [*values, window]


def choose_scans(connection: Connection, where: Condition, now: datetime) -> Chosen:
    """Return the scans that find the fewest ids, by the planner's estimate. Raises `UnindexedError`."""
    if not where.anchors:
        raise UnindexedError(where.weakest, HINT)
    every = list(dict.fromkeys(scans(where.anchors)))
    if len(every) > MAX_INDEX_SCANS:
        raise UnindexedError((), TOO_MANY)
    if len(every) == 1:
        return Chosen(every, 0)
    numbers = {scan: _estimate(connection, scan.sql, bind(scan.values, now)) for scan in every}
    return choose(where.anchors, numbers.__getitem__)


def _count(connection: Connection, where: Condition, chosen: Chosen, now: datetime) -> Count:
    counted, smallest = _count_in_time(connection, *count_statement(where, chosen, now)), 0
    if counted is not None:
        if counted <= MAX_EXACT:
            return Count(counted, exact=True)
        smallest = MAX_EXACT
    estimate = _estimate(connection, f"SELECT FROM emails e WHERE {where.sql}", where.bind(now))
    return Count(max(estimate, smallest), exact=False)


def _count_in_time(connection: Connection, sql: str, values: list[Any]) -> int | None:
    """Return the count of a statement; None if that takes half of the time that a statement may."""
    try:
        with connection.transaction():
            connection.execute(f"SET LOCAL statement_timeout = {app_settings().db_statement_timeout * 500}")
            row = connection.execute(sql, values, prepare=False).fetchone()
    except psycopg.errors.QueryCanceled:
        return None
    assert row is not None  # noqa: S101  an aggregate has one row
    number: int = row[0]
    return number


def _estimate(connection: Connection, query: str, values: list[Any]) -> int:
    """Return the planner's estimate of the number of rows."""
    row = connection.execute(f"EXPLAIN (FORMAT JSON) {query}", values, prepare=False).fetchone()
    assert row is not None  # noqa: S101  a plan has one row
    return int(row[0][0]["Plan"]["Plan Rows"])


def to_cursor(position: UUID) -> str:
    """Return a position as an opaque, URL-safe text for clients to send back."""
    return base64.urlsafe_b64encode(position.bytes).decode().rstrip("=")


def from_cursor(cursor: str) -> UUID:
    """Parse the text of a position. Raises `ValueError`."""
    try:
        return UUID(bytes=base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except ValueError as error:
        raise ValueError("not a cursor") from error
