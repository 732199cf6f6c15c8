"""Parked contacts of backends: their reasons, and retries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ctms.database.pool import Connection
from ctms.outbox import deletions

BATCH = 2_000
"""Number of contacts that one transaction retries; writers of these contacts wait for it."""

_REASONS = """
    SELECT r.*, ARRAY(
        SELECT email_id::text FROM outbox o
        WHERE o.backend = %(backend)s AND o.reason IS NOT DISTINCT FROM r.reason AND o.parked_at IS NOT NULL
        LIMIT %(examples)s)
    FROM (
        SELECT reason, count(*) AS contacts, min(parked_at), max(parked_at) FROM outbox
        WHERE backend = %(backend)s AND parked_at IS NOT NULL GROUP BY reason
    ) r ORDER BY contacts DESC, reason"""

# In the order of the index, continuing after the last batch: neither processed rows nor those that are parked again are
# looked at twice. The rows are locked in the order in which writers lock them.
_RETRY = """
    WITH found AS MATERIALIZED (
        SELECT reason, email_id FROM outbox
        WHERE backend = %(backend)s AND parked_at IS NOT NULL {which} ORDER BY reason, email_id LIMIT %(limit)s),
    locked AS MATERIALIZED (
        SELECT o.email_id FROM outbox o JOIN found USING (email_id)
        WHERE o.backend = %(backend)s AND o.parked_at <= %(began)s ORDER BY o.email_id FOR UPDATE OF o),
    retried AS (
        UPDATE outbox o SET
            parked_at = NULL, reason = NULL, attempts = 0, failures = 0, due_at = clock_timestamp(),
            waiting_since = clock_timestamp()
        FROM locked l WHERE o.backend = %(backend)s AND o.email_id = l.email_id RETURNING o.email_id)
    SELECT f.reason, f.email_id, ARRAY(SELECT email_id FROM retried)
    FROM found f ORDER BY f.reason DESC, f.email_id DESC LIMIT 1"""
_OF_REASON = "AND reason = %(reason)s"
_BEHIND = "AND (reason, email_id) > (%(last_reason)s, %(last)s)"


@dataclass(frozen=True)
class Reason:
    """A reason for parked contacts: how many, since when, and examples."""

    reason: str | None
    contacts: int
    first: datetime
    last: datetime
    email_ids: list[str]


def reasons(connection: Connection, backend: str, examples: int) -> list[Reason]:
    """Return the reasons for parked contacts, the most frequent first, each with examples."""
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # counting takes long if many are parked
        rows = connection.execute(_REASONS, {"backend": backend, "examples": examples}).fetchall()
    return [Reason(*row) for row in rows]


def retry(connection: Connection, backend: str, reason: str | None = None) -> Iterator[int]:
    """Retry parked contacts, or those parked for a reason; yield their numbers, batch by batch.

    Each batch is a separate transaction: finished batches are kept after an interruption.
    """
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  it has one row
    values = {"backend": backend, "began": row[0], "reason": reason, "limit": BATCH}
    which = "" if reason is None else _OF_REASON
    sql = _RETRY.format(which=which)
    while True:
        with connection.transaction():
            row = connection.execute(sql, values).fetchone()
            if row is None:
                return
            values["last_reason"], values["last"], retried = row
            if retried:
                deletions.unpark(connection, backend, retried)
        yield len(retried)
        sql = _RETRY.format(which=f"{which} {_BEHIND}")
