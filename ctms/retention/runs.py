"""The records of runs: when the rules were applied, by whom, with which result, and when the next run is due."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from ctms.database.pool import Connection
from ctms.retention.models import RetentionRun

WORKER = "worker"
"""The starter of scheduled runs."""

DONE = "done"
OVER_MAX = "over the maximum"
"""Nothing was erased, because the rules match more contacts than a run may erase."""
INCOMPLETE = "incomplete"
"""Some contacts failed."""
INTERRUPTED = "interrupted"
FAILED = "failed"

INTERVAL = timedelta(days=7)

_START = f"""
    INSERT INTO {RetentionRun.__tablename__} (id, started_at, started_by, max_contacts)
    VALUES (%s, clock_timestamp(), %s, %s)"""
_FINISH = f"""
    UPDATE {RetentionRun.__tablename__} SET finished_at = clock_timestamp(), outcome = %(outcome)s, found = %(found)s,
        erased = %(erased)s, anonymised = %(anonymised)s, held = %(held)s, changed = %(changed)s, failed = %(failed)s
    WHERE id = %(id)s"""

_FAILED = f"""
    INSERT INTO {RetentionRun.__tablename__} (id, started_at, finished_at, started_by, max_contacts, outcome)
    VALUES (%s, clock_timestamp(), clock_timestamp(), '{WORKER}', 0, '{FAILED}')"""

# An operator's run that was over its maximum does not replace the scheduled one. A run that failed, was interrupted or
# was killed has done a part at most, so the next one is due.
_IS_DUE = f"""
    SELECT NOT EXISTS (
        SELECT FROM {RetentionRun.__tablename__}
        WHERE started_at > clock_timestamp() - %(interval)s::interval AND (
            outcome IN ('{DONE}', '{INCOMPLETE}') OR (outcome = '{OVER_MAX}' AND started_by = '{WORKER}')))"""

COLUMNS = tuple(column.name for column in RetentionRun.__table__.columns if column.name != "id")
_NEWEST = f"SELECT {', '.join(COLUMNS)} FROM {RetentionRun.__tablename__} ORDER BY started_at DESC, id LIMIT %s"

_STATE = f"""
    SELECT
        coalesce((
            SELECT CASE outcome WHEN '{OVER_MAX}' THEN found ELSE 0 END FROM {RetentionRun.__tablename__}
            WHERE outcome IN ('{DONE}', '{INCOMPLETE}', '{OVER_MAX}') ORDER BY started_at DESC LIMIT 1), 0),
        coalesce((
            SELECT extract(epoch FROM finished_at)::float8 FROM {RetentionRun.__tablename__}
            WHERE outcome = '{DONE}' ORDER BY started_at DESC LIMIT 1), 0)"""


class RetentionState(NamedTuple):
    """The contacts that the last run found if more than its maximum, else 0; the Unix time of the last success."""

    over_max: int
    last_success: float


def start(connection: Connection, run_id: UUID, by: str, maximum: int) -> None:
    """Insert the record of a run that begins."""
    connection.execute(_START, (run_id, by, maximum))


def finish(connection: Connection, run_id: UUID, outcome: str, numbers: Mapping[str, int]) -> None:
    """Store the outcome of a run and its `numbers` of contacts, by column."""
    connection.execute(_FINISH, {"id": run_id, "outcome": outcome, **numbers})


def record_failure(connection: Connection) -> None:
    """Insert the record of a scheduled run that failed before it could read the rules."""
    connection.execute(_FAILED, (uuid4(),))


def is_due(connection: Connection) -> bool:
    """Return whether a scheduled run is due: a week after the last whole run."""
    row = connection.execute(_IS_DUE, {"interval": INTERVAL}).fetchone()
    return row is not None and row[0] is True


def newest(connection: Connection, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in connection.execute(_NEWEST, (limit,)).fetchall()]


def state(connection: Connection) -> RetentionState:
    """Return the state of retention, for metrics."""
    row = connection.execute(_STATE).fetchone()
    return RetentionState(*(row or (0, 0.0)))
