"""The metrics of the background service, on its own port or pushed to a gateway.

Deletion handlers count like backends: the label `backend` is their name.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ctms.hooks.receivers import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.outbox.lanes import BACKEND, HANDLER, Lane
from ctms.pool import Connection
from ctms.worker.verdicts import AskAgain, Finished, Later, Parked, Verdict

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60)
METHODS = {BACKEND: ("push",), HANDLER: ("erase", "verify")}
STATUSES = {
    Done: "done",
    TryLater: "try_later",
    SlowDown: "slow_down",
    Refused: "refused",
    Accepted: "accepted",
    Pause: "paused",
}
"""What a call is counted as when it answers the same for all its contacts; else it is `mixed`."""
VERDICTS = {Finished: "done", Later: "retried", AskAgain: "accepted", Parked: "parked"}
"""What a contact is counted as."""

_WAITING = """
    SELECT {name}, count(*) FILTER (WHERE parked_at IS NULL),
        count(*) FILTER (WHERE parked_at IS NULL AND attempts > 0),
        count(*) FILTER (WHERE parked_at IS NOT NULL),
        extract(epoch FROM clock_timestamp() - min(waiting_since) FILTER (WHERE parked_at IS NULL))::float8
    FROM {table} WHERE {name} = ANY(%s) GROUP BY 1"""
_OF_KIND = {
    BACKEND: _WAITING.format(name="backend", table="outbox"),
    HANDLER: _WAITING.format(name="handler", table="erasure_tasks"),
}


class Metrics:
    """The metrics of one process of the service, in a registry of their own."""

    def __init__(self, lanes: Iterable[Lane]) -> None:
        self.registry = CollectorRegistry()
        self._receivers = sorted({(lane.kind, lane.name) for lane in lanes})
        self._requests = Counter(
            "ctms_background_requests",
            "Calls to backends and deletion handlers.",
            ["backend", "method", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ctms_background_requests_duration_seconds",
            "How long the calls took.",
            ["backend", "method", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._sync = Counter(
            "ctms_background_sync",
            "Contacts that were handed over, by what became of them.",
            ["backend", "status"],
            registry=self.registry,
        )
        self._gauges = [
            Gauge(f"ctms_background_sync_{name}", words, ["backend"], registry=self.registry)
            for name, words in (
                ("backlog", "Contacts that wait."),
                ("retries", "Contacts that wait and were tried before."),
                ("parked", "Contacts that are not tried any more until they change or an operator retries them."),
                ("age_seconds", "How long the contact that waits longest has waited."),
            )
        ]
        self._looped = Gauge(
            "ctms_background_last_loop_timestamp_seconds",
            "When the service last looked for work (Unix time).",
            registry=self.registry,
        )
        for kind, name in self._receivers:
            for method in METHODS[kind]:
                self._requests.labels(name, method, "done")
            for status in VERDICTS.values():
                self._sync.labels(name, status)

    def answered(self, lane: Lane, method: str, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Count a call that was answered."""
        kinds = {type(outcome) for outcome in outcomes}
        self._called(lane, method, STATUSES[kinds.pop()] if len(kinds) == 1 else "mixed", seconds)

    def failed(self, lane: Lane, method: str, error: BaseException, seconds: float) -> None:
        """Count a call that was not."""
        self._called(lane, method, "timeout" if isinstance(error, TimeoutError) else "raised", seconds)

    def settled(self, lane: Lane, verdicts: Iterable[Verdict]) -> None:
        """Count contacts."""
        for kind, number in Tally(map(type, verdicts)).items():
            self._sync.labels(lane.name, VERDICTS[kind]).inc(number)

    def _called(self, lane: Lane, method: str, status: str, seconds: float) -> None:
        self._requests.labels(lane.name, method, status).inc()
        self._seconds.labels(lane.name, method, status).observe(seconds)

    def looped(self) -> None:
        """Note that the service is alive."""
        self._looped.set(time.time())

    def look(self, connection: Connection) -> None:
        """Bring what waits up to date."""
        waiting = {name: (0, 0, 0, 0.0) for _, name in self._receivers}
        for kind, sql in _OF_KIND.items():
            names = [name for one, name in self._receivers if one == kind]
            rows = connection.execute(sql, (names,)).fetchall() if names else []
            for name, backlog, retries, parked, age in rows:  # a backend and a handler may share a name
                before = waiting[name]
                numbers = (before[0] + backlog, before[1] + retries, before[2] + parked)
                waiting[name] = (*numbers, max(before[3], age or 0.0))
        for name, values in waiting.items():
            for gauge, value in zip(self._gauges, values, strict=True):
                gauge.labels(name).set(value)
