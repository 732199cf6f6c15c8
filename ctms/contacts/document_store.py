"""The store of documents as a whole: filling it in the order of changes, checking it, and emptying it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import psycopg

from ctms.contacts.stored_documents import FORMAT, compare, fill, remove_orphans
from ctms.database.pool import Connection
from ctms.database.sampling import sample_contacts
from ctms.history.feeds import settled

BATCH = 500
"""Contacts of a transaction, which takes some 50 ms."""

_FIRST = ("-infinity", UUID(int=0))
_PROGRESS = f"SELECT moment::text, email_id FROM document_progress WHERE format = '{FORMAT}'"
_SAVE_PROGRESS = f"""
    INSERT INTO document_progress (format, moment, email_id) VALUES ('{FORMAT}', %s::timestamptz, %s)
    ON CONFLICT (one_row)
    DO UPDATE SET format = excluded.format, moment = excluded.moment, email_id = excluded.email_id"""

_CHANGED = """
    SELECT update_timestamp::text, email_id FROM emails
    WHERE (update_timestamp, email_id) > (%s::timestamptz, %s) AND update_timestamp < %s
    ORDER BY update_timestamp, email_id LIMIT %s"""
_OUTDATED = """
    SELECT DISTINCT email_id FROM outdated_documents WHERE email_id > %s ORDER BY email_id LIMIT %s"""

_ALL = "SELECT email_id FROM contact_documents WHERE email_id > %s ORDER BY email_id LIMIT %s"
_MARK = """
    INSERT INTO outdated_documents (email_id) SELECT wanted FROM unnest(%s::uuid[]) AS wanted
    WHERE NOT EXISTS (SELECT FROM outdated_documents o WHERE o.email_id = wanted)"""

# It waits for writers that have stored a document and not ended, while other writers wait for those that it has stored.
# It is less than the `deadlock_timeout` of PostgreSQL: of the two that wait for each other, this one gives up.
_SHORT_WAIT = "SET LOCAL lock_timeout = '100ms'"

_IS_EMPTY = """
    SELECT NOT EXISTS (SELECT FROM contact_documents) AND NOT EXISTS (SELECT FROM outdated_documents)
        AND NOT EXISTS (SELECT FROM document_progress)"""
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1s'"  # writers queue up behind a lock that is awaited
_EMPTY = "TRUNCATE contact_documents, outdated_documents, document_progress"


@dataclass(frozen=True)
class FillResult:
    """The number of contacts that were looked at, and of documents that were stored."""

    seen: int = 0
    stored: int = 0


def fill_missing(connection: Connection) -> Iterator[FillResult]:
    """Store the documents of all contacts that have no valid one, in short transactions; yield the result of each.

    It starts where the last call ended, with the contacts that changed since: `document_progress` has the position.
    Documents of another format start it from the first contact. Then come those that writers of other software have
    outdated. The connection is in autocommit mode.
    """
    yield from _fill_changed(connection)
    yield from _fill_outdated(connection)


def _fill_changed(connection: Connection) -> Iterator[FillResult]:
    row = settled(connection).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    horizon = row[0]
    after = connection.execute(_PROGRESS).fetchone() or _FIRST
    while rows := connection.execute(_CHANGED, (*after, horizon, BATCH)).fetchall():
        after = rows[-1]
        stored = _fill_batch(connection, [email_id for _, email_id in rows])
        connection.execute(_SAVE_PROGRESS, after)
        yield FillResult(len(rows), stored)
    # Without the id of a contact, which may be deleted.
    connection.execute(_SAVE_PROGRESS, (horizon, UUID(int=0)))


def _fill_outdated(connection: Connection) -> Iterator[FillResult]:
    after = UUID(int=0)
    while ids := [row[0] for row in connection.execute(_OUTDATED, (after, BATCH)).fetchall()]:
        after = ids[-1]
        stored = _fill_batch(connection, ids)
        remove_orphans(connection, ids)
        yield FillResult(len(ids), stored)


def _fill_batch(connection: Connection, ids: list[UUID]) -> int:
    """Store what is missing of these in one transaction, or one by one if that would wait for a writer.

    The contacts of such a writer are noted, for the next call.
    """
    try:
        with connection.transaction():
            connection.execute(_SHORT_WAIT)
            return fill(connection, ids)
    except psycopg.errors.LockNotAvailable:
        if len(ids) > 1:
            return sum(_fill_batch(connection, [one]) for one in ids)
        connection.execute(_MARK, (ids,))
        return 0


@dataclass(frozen=True)
class CheckResult:
    """The number of valid stored documents that were compared, and of those that differ from the rendered ones."""

    checked: int = 0
    different: int = 0


def check(connection: Connection, sample: int | None = None) -> Iterator[CheckResult]:
    """Compare stored documents with rendered ones, all or a random sample; yield the result of each batch."""
    for ids in _batches(connection, sample):
        checked, different = compare(connection, ids)
        yield CheckResult(checked, len(different))


def check_and_repair(connection: Connection, sample: int) -> CheckResult:
    """Compare a random sample as `check` does, and outdate the documents that differ."""
    ids = sample_contacts(connection, "contact_documents", sample)
    checked, different = compare(connection, ids)
    if different:
        connection.execute(_MARK, (different,))
    return CheckResult(checked, len(different))


def _batches(connection: Connection, sample: int | None) -> Iterator[list[UUID]]:
    if sample is not None:
        ids = sample_contacts(connection, "contact_documents", sample)
        yield from (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
        return
    after = UUID(int=0)
    while ids := [row[0] for row in connection.execute(_ALL, (after, BATCH)).fetchall()]:
        after = ids[-1]
        yield ids


def empty(connection: Connection) -> bool:
    """Remove all stored documents, which frees their disk space; return whether that was possible without waiting long.

    The connection is in autocommit mode.
    """
    row = connection.execute(_IS_EMPTY).fetchone()
    if row is not None and row[0]:
        return True
    try:
        with connection.transaction():
            connection.execute(_LOCK_TIMEOUT)
            connection.execute(_EMPTY)
    except psycopg.errors.LockNotAvailable:
        return False
    return True
