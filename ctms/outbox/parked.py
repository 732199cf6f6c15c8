"""What is parked for backends: why, and having it tried again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ctms.outbox.lanes import BACKEND
from ctms.outbox.receivers import wake_all
from ctms.pool import Connection

BATCH = 5_000
"""Contacts that one transaction takes up again: whoever edits one of them waits for it."""

_REASONS = """
    SELECT r.*, ARRAY(
        SELECT email_id::text FROM outbox o
        WHERE o.backend = %(backend)s AND o.reason IS NOT DISTINCT FROM r.reason AND o.parked_at IS NOT NULL
        LIMIT %(examples)s)
    FROM (
        SELECT reason, count(*) AS contacts, min(parked_at), max(parked_at) FROM outbox
        WHERE backend = %(backend)s AND parked_at IS NOT NULL GROUP BY reason
    ) r ORDER BY contacts DESC, reason"""

# What is parked again meanwhile is left: so it ends. The rows are locked in the order in which writers lock them.
_RETRY = """
    WITH found AS (
        SELECT email_id FROM outbox
        WHERE backend = %(backend)s AND parked_at <= %(began)s AND parked_at IS NOT NULL {which} LIMIT %(limit)s),
    locked AS (
        SELECT o.email_id FROM outbox o JOIN found USING (email_id)
        WHERE o.backend = %(backend)s AND o.parked_at <= %(began)s ORDER BY o.email_id FOR UPDATE OF o)
    UPDATE outbox o SET
        parked_at = NULL, reason = NULL, attempts = 0, failures = 0, due_at = clock_timestamp(),
        waiting_since = clock_timestamp()
    FROM locked l WHERE o.backend = %(backend)s AND o.email_id = l.email_id"""
_RETRY_ALL = _RETRY.format(which="")
_RETRY_REASON = _RETRY.format(which="AND reason = %(reason)s")


@dataclass(frozen=True)
class Reason:
    """Why contacts are parked, how many, since when, and a few of them."""

    reason: str | None
    contacts: int
    first: datetime
    last: datetime
    email_ids: list[str]


def reasons(connection: Connection, backend: str, examples: int) -> list[Reason]:
    """Return why contacts are parked, the most frequent reason first, each with a few examples."""
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # counting takes long when many are parked
        rows = connection.execute(_REASONS, {"backend": backend, "examples": examples}).fetchall()
    return [Reason(*row) for row in rows]


def retry(connection: Connection, backend: str, reason: str | None = None) -> Iterator[int]:
    """Have what is parked, or what is parked for a reason, wait again; gives how many, batch by batch.

    Each batch is a transaction of its own: what is done stays when it is interrupted.
    """
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  it has one row
    values = {"backend": backend, "began": row[0], "reason": reason, "limit": BATCH}
    while True:
        with connection.transaction():
            number = connection.execute(_RETRY_ALL if reason is None else _RETRY_REASON, values).rowcount
            if number:
                wake_all(connection, BACKEND, [backend])
        if not number:
            return
        yield number
