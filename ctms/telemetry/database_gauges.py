"""Gauges read from the database: by one process for the whole instance, at most once every few seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import psycopg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctms.contacts.queries import estimate_contacts
from ctms.database.engine import quick_connection
from ctms.telemetry.slots import Slots, locked

CACHE_SECONDS = 5
"""How long values are reused: less than the time between two scrapes, so that each scrape gets new ones."""

# By the indexes of open ones.
_OPEN_ERASURES = """
    SELECT count(*)::float8, coalesce(extract(epoch FROM now() - min(requested_at)), 0)::float8
    FROM erasures
    WHERE id IN (
        SELECT erasure_id FROM erasure_handlers WHERE pending > 0 OR parked > 0
        UNION ALL SELECT erasure_id FROM erasure_backends WHERE pending > 0 OR parked > 0)"""


class DatabaseCounts(NamedTuple):
    """The estimated number of contacts, the number of open erasures, and the age of the oldest in seconds."""

    contacts: float
    erasures_open: float
    erasures_oldest: float


class DatabaseGauges(Collector):
    """Collects gauges from the database, cached in memory or, where several processes serve, in their directory."""

    def __init__(self, slots: Slots | None) -> None:
        self._lock = Lock()
        self._file = slots.directory / "database_gauges.json" if slots else None
        self._cached: tuple[float, DatabaseCounts | None] | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; none when the database does not respond in time. Needs an app context."""
        counts = self.read()
        if counts is not None:
            for name, text, value in (
                ("ctms_contacts_total", "Contacts, as estimated by PostgreSQL's planner.", counts.contacts),
                (
                    "ctms_erasures_open",
                    "Erasures that a deletion handler or backend has not finished.",
                    counts.erasures_open,
                ),
                ("ctms_erasures_oldest_seconds", "Age of the oldest open erasure.", counts.erasures_oldest),
            ):
                yield GaugeMetricFamily(name, text, value)

    def read(self) -> DatabaseCounts | None:
        """Return the counts; None when the database did not respond in time. Needs an app context."""
        with self._locked():
            now = time.monotonic()  # which all processes of a machine share
            cached = _read_cache(self._file) if self._file else self._cached
            if cached is not None and 0 <= now - cached[0] < CACHE_SECONDS:
                return cached[1]
            counts = _query()
            self._cached = (time.monotonic(), counts)
            if self._file:
                self._file.write_text(json.dumps(self._cached))
            return counts

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._file:
            with locked(self._file.with_suffix(".lock")):
                yield
        else:
            with self._lock:
                yield


def _query() -> DatabaseCounts | None:
    try:
        with quick_connection() as connection:
            erasures = connection.execute(_OPEN_ERASURES).fetchone() or (0.0, 0.0)
            return DatabaseCounts(float(estimate_contacts(connection)), *erasures)
    except psycopg.Error:
        return None  # `/__heartbeat__` reports the cause


def _read_cache(file: Path) -> tuple[float, DatabaseCounts | None] | None:
    try:
        at, counts = json.loads(file.read_text())
        return float(at), DatabaseCounts(*counts) if counts else None
    except (FileNotFoundError, ValueError, TypeError):  # no process has written it, or one was killed while writing
        return None
