"""The metrics of the background service, served on its own port or pushed to a gateway.

Deletion handlers count like backends: their name is the value of the label `backend`.
"""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ctms.contacts.document_store import CheckResult
from ctms.database.pool import Connection
from ctms.hooks.receivers import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.outbox.lanes import BACKEND, HANDLER, Lane
from ctms.retention import runs
from ctms.sync.receiver_states import count_waiting
from ctms.sync.verdicts import AskAgain, Finished, Later, Parked, Verdict

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
"""The status of a call with the same outcome for all its contacts; that of other calls is `mixed`."""
VERDICTS = {Finished: "done", Later: "retried", AskAgain: "accepted", Parked: "parked"}
"""The status of a contact, by verdict."""


class WorkerMetrics:
    """The metrics of one worker process, in a separate registry; `housekeeping` are the names of its jobs."""

    def __init__(self, lanes: Iterable[Lane], *, housekeeping: Iterable[str] = (), retention: bool = False) -> None:
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
            "Duration of calls to backends and deletion handlers.",
            ["backend", "method", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._sync = Counter(
            "ctms_background_sync",
            "Contacts passed to backends and deletion handlers, by outcome.",
            ["backend", "status"],
            registry=self.registry,
        )
        self._gauges = [
            Gauge(f"ctms_background_sync_{name}", help_text, ["backend"], registry=self.registry)
            for name, help_text in (
                ("backlog", "Waiting contacts."),
                ("retries", "Waiting contacts that were tried before."),
                ("parked", "Parked contacts, which are not tried until they change or an operator retries them."),
                ("age_seconds", "Age of the oldest waiting contact."),
            )
        ]
        self._last_loop = Gauge(
            "ctms_background_last_loop_timestamp_seconds",
            "Unix time of the worker's last loop.",
            registry=self.registry,
        )
        self._failed_housekeeping = Counter(
            "ctms_background_housekeeping_failures",
            "Failed housekeeping jobs.",
            ["task"],  # `job` is a label of Prometheus
            registry=self.registry,
        )
        for name in housekeeping:
            self._failed_housekeeping.labels(name)
        self._checked_documents = Counter(
            "ctms_stored_documents_checked",
            "Stored documents that were compared with rendered ones, by result.",
            ["result"],
            registry=self.registry,
        )
        for result in ("equal", "different"):
            self._checked_documents.labels(result)
        self._retention = [
            Gauge(f"ctms_retention_{name}", help_text, registry=self.registry)
            for name, help_text in (
                (
                    "over_max_contacts",
                    "Contacts found by the last run, if more than its maximum, so that nothing was erased; else 0.",
                ),
                ("last_success_timestamp_seconds", "Unix time of the last complete run; 0 before the first one."),
            )
            if retention
        ]
        for kind, name in self._receivers:
            for method in METHODS[kind]:
                self._requests.labels(name, method, "done")
            for status in VERDICTS.values():
                self._sync.labels(name, status)

    def count_call(self, lane: Lane, method: str, outcomes: Iterable[Outcome], seconds: float) -> None:
        """Count a call that returned outcomes."""
        kinds = {type(outcome) for outcome in outcomes}
        self._observe_call(lane, method, STATUSES[kinds.pop()] if len(kinds) == 1 else "mixed", seconds)

    def count_failed_call(self, lane: Lane, method: str, error: BaseException, seconds: float) -> None:
        """Count a call that raised an error or timed out."""
        self._observe_call(lane, method, "timeout" if isinstance(error, TimeoutError) else "raised", seconds)

    def count_verdicts(self, lane: Lane, verdicts: Iterable[Verdict]) -> None:
        """Count contacts by verdict."""
        for kind, number in Counts(map(type, verdicts)).items():
            self._sync.labels(lane.name, VERDICTS[kind]).inc(number)

    def _observe_call(self, lane: Lane, method: str, status: str, seconds: float) -> None:
        self._requests.labels(lane.name, method, status).inc()
        self._seconds.labels(lane.name, method, status).observe(seconds)

    def count_failed_housekeeping(self, name: str) -> None:
        """Count a failed housekeeping job."""
        self._failed_housekeeping.labels(name).inc()

    def count_checked_documents(self, found: CheckResult) -> None:
        """Count stored documents that were compared with rendered ones."""
        self._checked_documents.labels("equal").inc(found.checked - found.different)
        self._checked_documents.labels("different").inc(found.different)

    def mark_loop(self) -> None:
        """Set the time of the last loop to now."""
        self._last_loop.set(time.time())

    def update_waiting(self, connection: Connection) -> None:
        """Update the gauges of waiting and parked contacts, and of retention."""
        waiting = {name: (0, 0, 0, 0.0) for _, name in self._receivers}
        for kind in METHODS:
            names = [name for one, name in self._receivers if one == kind]
            for name, backlog, retries, parked, age in count_waiting(connection, kind, names):
                before = waiting[name]  # a backend and a handler may share a name
                numbers = (before[0] + backlog, before[1] + retries, before[2] + parked)
                waiting[name] = (*numbers, max(before[3], age or 0.0))
        for name, values in waiting.items():
            for gauge, value in zip(self._gauges, values, strict=True):
                gauge.labels(name).set(value)
        if self._retention:
            for gauge, value in zip(self._retention, runs.state(connection), strict=True):
                gauge.set(value)
