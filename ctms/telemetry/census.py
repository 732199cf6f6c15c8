"""What is counted in the database: asked by one process for all of its instance, every few seconds at the most."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import psycopg

from ctms.database import quick_connection
from ctms.telemetry.slots import Slots, locked

FRESH_FOR_IN_SECONDS = 5
"""How long an answer counts: less than what lies between two scrapes, so each scrape has one of its own."""

# The contacts as the planner estimates them: those per page, when the table was analysed last, by the pages of now.
# A table that never was has no such number yet; then what the statistics say of inserts and deletes.
# The erasures by the indexes of those that are open.
_QUESTION = """
    SELECT
        CASE WHEN c.relpages > 0
            THEN round(greatest(c.reltuples, 0)::float8 / c.relpages
                * (pg_relation_size(c.oid) / current_setting('block_size')::int))
            ELSE pg_stat_get_live_tuples(c.oid)::float8
        END,
        e.open::float8,
        e.oldest::float8
    FROM pg_class c, (
        SELECT count(*) AS open, coalesce(extract(epoch FROM now() - min(requested_at)), 0) AS oldest
        FROM erasures
        WHERE id IN (
            SELECT erasure_id FROM erasure_handlers WHERE pending > 0 OR parked > 0
            UNION ALL SELECT erasure_id FROM erasure_backends WHERE pending > 0 OR parked > 0)
    ) e
    WHERE c.oid = 'emails'::regclass"""


class Counts(NamedTuple):
    """How many contacts there are, by estimate; how many erasures are open, and how many seconds the oldest."""

    contacts: float
    erasures_open: float
    erasures_oldest: float


class Census:
    """Keeps the last answer, in memory or, where several processes serve, in the folder of their slots."""

    def __init__(self, slots: Slots | None) -> None:
        self._lock = Lock()
        self._file = slots.folder / "census.json" if slots else None
        self._kept: tuple[float, Counts | None] | None = None

    def take(self) -> Counts | None:
        """Return the counts; None when the database did not answer in time. Inside an app's context."""
        with self._alone():
            now = time.monotonic()  # which all processes of a machine share
            kept = _read(self._file) if self._file else self._kept
            if kept is not None and 0 <= now - kept[0] < FRESH_FOR_IN_SECONDS:
                return kept[1]
            found = _ask()
            self._kept = (time.monotonic(), found)
            if self._file:
                self._file.write_text(json.dumps(self._kept))
            return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._file:
            with locked(self._file.with_suffix(".lock")):
                yield
        else:
            with self._lock:
                yield


def _ask() -> Counts | None:
    try:
        with quick_connection() as connection:
            row = connection.execute(_QUESTION).fetchone()
    except psycopg.Error:
        return None  # `/__heartbeat__` says why
    return Counts(*row) if row else None


def _read(file: Path) -> tuple[float, Counts | None] | None:
    try:
        at, found = json.loads(file.read_text())
        return float(at), Counts(*found) if found else None
    except (FileNotFoundError, ValueError, TypeError):  # nobody has asked yet, or was killed while writing
        return None
