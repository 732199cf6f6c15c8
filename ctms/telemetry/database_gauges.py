"""Gauges read from the database, by each process at most once every few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf
from threading import Lock
from typing import NamedTuple

import psycopg
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ctms.contacts.queries import estimate_contacts
from ctms.database.engine import quick_connection
from ctms.erasure.records import UNFINISHED

CACHE_SECONDS = 5
"""How long values are reused: less than the time between two scrapes, so that each scrape gets new ones."""

_OPEN_ERASURES = f"""
    SELECT count(*)::float8, coalesce(extract(epoch FROM now() - min(requested_at)), 0)::float8
    FROM erasures WHERE id IN ({UNFINISHED})"""


class DatabaseCounts(NamedTuple):
    """The estimated number of contacts, the number of open erasures, and the age of the oldest in seconds."""

    contacts: float
    erasures_open: float
    erasures_oldest: float


class DatabaseGauges(Collector):
    """Collects gauges from the database."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._read_at = -inf
        self._counts: DatabaseCounts | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; none when the database does not respond in time. Needs an app context."""
        counts = self.read()
        if counts is not None:
            for name, text, value in (
                ("ctms_contacts_total", "Contacts, as estimated by PostgreSQL's planner.", counts.contacts),
                (
                    "ctms_erasures_open",
                    "Erasures that a deletion handler or backend has not finished, or not verified.",
                    counts.erasures_open,
                ),
                ("ctms_erasures_oldest_seconds", "Age of the oldest open erasure.", counts.erasures_oldest),
            ):
                yield GaugeMetricFamily(name, text, value)

    def read(self) -> DatabaseCounts | None:
        """Return the counts; None when the database did not respond in time. Needs an app context."""
        with self._lock:
            if time.monotonic() - self._read_at >= CACHE_SECONDS:
                self._counts = _query()
                self._read_at = time.monotonic()
            return self._counts


def _query() -> DatabaseCounts | None:
    try:
        with quick_connection() as connection:
            erasures = connection.execute(_OPEN_ERASURES).fetchone() or (0.0, 0.0)
            return DatabaseCounts(float(estimate_contacts(connection)), *erasures)
    except psycopg.Error:
        return None  # `/__heartbeat__` reports the cause
