"""The metrics of the API, served at `/metrics` by prometheus-flask-exporter: only the documented `ctms_*` metrics.

With several processes the values are stored in files (`ctms.telemetry.slots`) and added up at a scrape. Series that are
known beforehand start at 0: Prometheus' `rate()` sees no growth in a series that starts at 1.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

from flask import Flask, Response, make_response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_flask_exporter import PrometheusMetrics

from ctms.clients.refusals import AuthFailure, TokenFailure
from ctms.compression import GZIP, compress
from ctms.contacts.newsletter_rules import SubscriptionFault
from ctms.database.pool import Pool
from ctms.database.replicas import ReplicaRead, find_replicas
from ctms.telemetry.database_gauges import DatabaseGauges
from ctms.telemetry.recorders import RequestRecorder
from ctms.telemetry.requests import (
    UNMATCHED,
    RequestLabels,
    RequestRecord,
    note_wait,
)
from ctms.telemetry.slots import Slots

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10)
DATABASE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
RULES_BUCKETS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1)


class BatchHistogram(Histogram):
    """A histogram that observes many values together."""

    def observe_many(self, values: Sequence[float]) -> None:
        """Observe each of the values."""
        if values:
            self._sum.inc(sum(values))
            for bucket, number in Counts(bisect_left(self._upper_bounds, value) for value in values).items():
                self._buckets[bucket].inc(number)


class PoolMetrics:
    """Metrics of the connections that requests use; the pool reports to it (`ctms.database.pool.PoolObserver`)."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._limit = Gauge(
            "ctms_database_connections_limit",
            "Maximum number of database connections for requests.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        connections = Gauge(
            "ctms_database_connections",
            "Database connections in use, and requests waiting for one.",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._in_use = connections.labels("in_use")
        self._waiting = connections.labels("waiting")
        self._timeouts = Counter(
            "ctms_database_connection_timeouts",
            "Requests that timed out waiting for a database connection.",
            registry=registry,
        )
        seconds = BatchHistogram(
            "ctms_database_seconds",
            "Database time per request, all its statements together.",
            ["kind"],
            buckets=DATABASE_BUCKETS,
            registry=registry,
        )
        self._seconds = {kind: seconds.labels(kind) for kind in ("read", "write")}

    def sample(self) -> None:
        """Set the gauges to the current number of connections and their maximum."""
        self._limit.set(self._pool.max_size)
        self._in_use.set(self._pool.checkedout())

    @contextmanager
    def track_wait(self) -> Iterator[None]:
        """Count a request as waiting for a connection, inside the block."""
        with self._waiting.track_inprogress():
            yield

    def count_timeout(self) -> None:
        """Count a request that timed out waiting for a connection."""
        self._timeouts.inc()

    def observe_time(self, kind: str, seconds: float) -> None:
        """Add to the database time of the current request, or observe it at once outside a request."""
        if not note_wait(kind, seconds):
            self.observe_many(kind, [seconds])

    def observe_many(self, kind: str, seconds: Sequence[float]) -> None:
        """Observe the database times of requests."""
        self._seconds[kind].observe_many(seconds)


class ApiMetrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self, pool: Pool) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody uses
        self.registry = CollectorRegistry()
        self.pool = PoolMetrics(pool, self.registry)
        self._seconds = BatchHistogram(
            "ctms_requests_duration_seconds",
            "Duration of requests.",
            ["method", "path_template", "status_code_family"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "ctms_requests",
            "Answered requests.",
            ["method", "path_template", "status_code", "status_code_family"],
            registry=self.registry,
        )
        self._replica_reads = Counter(
            "ctms_replica_reads",
            "Reads that may use a replica, by whether one was used.",
            ["result"],
            registry=self.registry,
        )
        for result in ReplicaRead:
            self._replica_reads.labels(result)
        self._api_requests = Counter(
            "ctms_api_requests",
            "Requests of authenticated API clients.",
            ["client_id", "method", "path_template", "status_code_family"],
            registry=self.registry,
        )
        self._rate_limited = Counter(
            "ctms_rate_limited_requests",
            "Requests that exceeded the rate limit of their API client.",
            ["client_id"],
            registry=self.registry,
        )
        self._token_failures = _counters_by_cause(
            "ctms_token_failures", "Failed token requests, by cause.", TokenFailure, self.registry
        )
        self._auth_failures = _counters_by_cause(
            "ctms_auth_failures",
            "Requests that failed authentication or authorization, by cause.",
            AuthFailure,
            self.registry,
        )
        self._rules_seconds = Histogram(
            "ctms_waitlist_rules_seconds",
            "Duration of a plugin's waitlist rules, per subscription.",
            ["plugin"],
            buckets=RULES_BUCKETS,
            registry=self.registry,
        )
        self._rules_failures = Counter(
            "ctms_waitlist_rules_failures",
            "Unexpected errors of a plugin's waitlist rules, each of which failed a request.",
            ["plugin"],
            registry=self.registry,
        )
        unavailable = Counter(
            "ctms_unavailable_newsletter_subscriptions",
            "New subscriptions to newsletters that are unknown or retired, by cause and outcome.",
            ["cause", "outcome"],
            registry=self.registry,
        )
        self._unavailable = {
            (fault, refused): unavailable.labels(fault.value, "refused" if refused else "accepted")
            for fault in SubscriptionFault
            for refused in (False, True)
        }
        self._families: dict[tuple[str, str], set[int]] = {}

    def preinitialize(self, responses: Iterable[tuple[str, str, int]]) -> None:
        """Start at 0 the series of these responses: method, path template, status."""
        for method, path_template, status in (*responses, ("GET", UNMATCHED, 404)):
            self._series(method, path_template, status)
            self._families.setdefault((method, path_template), set()).add(status // 100)

    def count(self, records: Sequence[RequestRecord]) -> None:
        """Count requests."""
        by_labels: defaultdict[RequestLabels, list[RequestRecord]] = defaultdict(list)
        for record in records:
            by_labels[record.labels].append(record)
        for labels, group in by_labels.items():
            number = len(group)
            seconds, counter = self._series(labels.method, labels.path_template, labels.status)
            seconds.observe_many([record.seconds for record in group])
            counter.inc(number)
            if labels.client_id is not None:
                family = labels.status // 100
                self._client_series(labels.client_id, labels.method, labels.path_template, family).inc(number)
            if labels.is_rate_limited:
                self._rate_limited.labels(labels.client_id).inc(number)
            if labels.auth_failure is not None:
                self._auth_failures[labels.auth_failure].inc(number)
            if labels.token_failure is not None:
                self._token_failures[labels.token_failure].inc(number)
        self.pool.observe_many("read", [one.read_seconds for one in records if one.read_seconds is not None])
        self.pool.observe_many("write", [one.write_seconds for one in records if one.write_seconds is not None])

    def create_rule_metrics(self, plugin: str) -> tuple[Histogram, Counter]:
        """Return the durations and the failures of the plugin's waitlist rules, both starting at 0."""
        return self._rules_seconds.labels(plugin), self._rules_failures.labels(plugin)

    def count_unavailable_newsletter(self, fault: SubscriptionFault, refused: bool) -> None:
        """Count a new subscription to a newsletter that takes none."""
        self._unavailable[fault, refused].inc()

    def count_replica_read(self, result: ReplicaRead) -> None:
        """Count a read that may use a replica."""
        self._replica_reads.labels(result).inc()

    # prometheus_client looks labels up in a dictionary under a lock; requests need the same ones again and again.
    @cache  # noqa: B019  one object per app
    def _series(self, method: str, path_template: str, status: int) -> tuple[BatchHistogram, Counter]:
        family = f"{status // 100}xx"
        return (
            self._seconds.labels(method, path_template, family),
            self._requests.labels(method, path_template, str(status), family),
        )

    @cache  # noqa: B019
    def _client_series(self, client_id: str, method: str, path_template: str, family: int) -> Counter:
        # A client's first request to an operation starts all families of that operation at 0, so its first error is
        # seen as growth. So does its first refusal by a rate limit.
        self._rate_limited.labels(client_id)
        for other in self._families.get((method, path_template), ()):
            self._api_requests.labels(client_id, method, path_template, f"{other}xx")
        return self._api_requests.labels(client_id, method, path_template, f"{family}xx")


def _counters_by_cause(
    name: str, help_text: str, causes: type[AuthFailure] | type[TokenFailure], registry: CollectorRegistry
) -> dict[str, Counter]:
    counter = Counter(name, help_text, ["cause"], registry=registry)
    return {cause: counter.labels(cause.value) for cause in causes}


class MetricsCollector(Collector):
    """Collects the metrics of a scrape: the counts of all processes, and gauges read at this moment."""

    def __init__(self, metrics: ApiMetrics, slots: Slots | None, recorder: RequestRecorder) -> None:
        self._metrics = metrics
        self._recorder = recorder
        self._slots = slots
        self._database_gauges = DatabaseGauges()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric once for the whole instance. Needs an app context."""
        self._metrics.pool.sample()
        self._recorder.flush()
        if self._slots is None:
            yield from self._metrics.registry.collect()
        else:
            yield from MultiProcessCollector.merge(self._slots.files())  # type: ignore[no-untyped-call]
        yield GaugeMetricFamily(
            "ctms_metrics_files_bytes",
            "Disk space used by the metrics files.",
            self._slots.size() if self._slots else 0,
        )
        yield from self._database_gauges.collect()


class Exporter(PrometheusMetrics):  # type: ignore[misc]
    """prometheus-flask-exporter's `/metrics` with the metrics of a `MetricsCollector`."""

    def __init__(self, collector: MetricsCollector, registry: CollectorRegistry) -> None:
        super().__init__(
            app=None,
            path="/metrics",
            export_defaults=False,
            registry=registry,
            metrics_decorator=_compress_on_request,
        )
        self._collector = collector

    def generate_metrics(self, accept_header: str | None = None, names: list[str] | None = None) -> tuple[str, str]:
        """Return the text and its content type; with `names` (`?name[]=`), only these metrics."""
        encode, content_type = choose_encoder(accept_header or "")
        return encode(_FilteredCollector(self._collector, set(names or ()))).decode(), content_type


def _compress_on_request(view: Callable[[], Any]) -> Callable[[], Response]:
    """Compress the response of a view where the client accepts gzip, as Prometheus does."""

    @wraps(view)
    def compressed() -> Response:
        response = make_response(view())
        response.vary.add("Accept")
        return compress(response, GZIP, min_size=0)

    return compressed


class _FilteredCollector(Collector):
    def __init__(self, collector: MetricsCollector, names: set[str]) -> None:
        self._collector = collector
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            if not self._names or self._names & {metric.name, *(sample.name for sample in metric.samples)}:
                yield metric


def init_metrics(app: Flask, metrics: ApiMetrics, slots: Slots | None, recorder: RequestRecorder) -> None:
    """Serve `/metrics`, including the requests of the recorder, and observe the app's pool and replicas."""
    app.extensions["ctms.pool"].observer = metrics.pool
    if (replicas := find_replicas(app)) is not None:
        replicas.observe = metrics.count_replica_read
    Exporter(MetricsCollector(metrics, slots, recorder), metrics.registry).init_app(app)
