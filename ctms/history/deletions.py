"""The recorded deletions of contacts: from which time on they are complete, and the purge of old ones."""

from __future__ import annotations

import logging
from datetime import datetime
from threading import Event

from ctms.database.pool import Connection
from ctms.errors import Gone
from ctms.history.models import MofoRelevanceChange, Tombstone
from ctms.settings import app_settings
from ctms.words import counted

logger = logging.getLogger(__name__)

BATCH = 1000
"""Number of rows per transaction of the purge: `/updates` waits for each."""

_RECORDED_SINCE = """
    SELECT greatest(recorded_since, statement_timestamp() - make_interval(days => %s)) FROM deletion_feed"""

_ADVANCE = """
    UPDATE deletion_feed SET recorded_since = statement_timestamp() - make_interval(days => %(days)s)
    WHERE recorded_since < statement_timestamp() - make_interval(days => %(days)s)"""

# Locked rows are skipped, because a writer is replacing them with newer ones.
_PURGE = """
    DELETE FROM {table} WHERE email_id = ANY (ARRAY(
        SELECT t.email_id FROM {table} t
        WHERE t.{column} < (SELECT recorded_since FROM deletion_feed)
        ORDER BY t.{column} LIMIT %s FOR UPDATE SKIP LOCKED))"""
_TABLES = {Tombstone.__tablename__: "deleted_at", MofoRelevanceChange.__tablename__: "changed_at"}


def require_recorded(connection: Connection, start: datetime) -> None:
    """Raise `Gone` unless all deletions since `start` are recorded and not older than `CTMS_TOMBSTONE_DAYS`."""
    row = connection.execute(_RECORDED_SINCE, (app_settings().tombstone_days,)).fetchone()
    assert row is not None  # noqa: S101  the migration inserts the row
    since: datetime = row[0]
    if start < since:
        raise Gone(
            f"Deletions before {since.isoformat()} are no longer listed: list all contacts anew, from the earliest"
            " `start` and without `deleted`, remove all others, and continue from the `end` of that list",
            recorded_since=since.isoformat(),
        )


def purge(connection: Connection, stopping: Event) -> int:
    """Delete the records of deletions that are older than `CTMS_TOMBSTONE_DAYS`, in batches; return their number."""
    # Committed first: a reader must not find a purged time complete.
    connection.execute(_ADVANCE, {"days": app_settings().tombstone_days})
    number = sum(_purge(connection, stopping, table, column) for table, column in _TABLES.items())
    if number:
        logger.info("%s of deletions purged", counted(number, "old record"))
    return number


def _purge(connection: Connection, stopping: Event, table: str, column: str) -> int:
    number = 0
    while not stopping.is_set():
        purged = connection.execute(_PURGE.format(table=table, column=column), (BATCH,)).rowcount
        number += purged
        if purged < BATCH:
            break
    return number
