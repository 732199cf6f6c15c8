"""The metrics of the API, at `/metrics`, by prometheus-flask-exporter: the documented `ctms_*` ones and no others.

With several processes the values are kept in files (`ctms.telemetry.slots`) and summed at a scrape. Series that can be
told beforehand are there from the start, at 0: Prometheus' `rate()` sees no growth in a series that begins at 1.
"""

from __future__ import annotations

import gzip
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

from ctms.current import current_request
from ctms.pool import Pool
from ctms.telemetry.census import Census
from ctms.telemetry.journal import Account
from ctms.telemetry.requests import UNMATCHED, Answer, AuthFailure, Finished, TokenFailure, note_wait
from ctms.telemetry.slots import Slots

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10)
DATABASE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
RULES_BUCKETS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1)


class Times(Histogram):
    """A histogram that takes many values together."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe each of the values."""
        if values:
            self._sum.inc(sum(values))
            for bucket, number in Counts(bisect_left(self._upper_bounds, value) for value in values).items():
                self._buckets[bucket].inc(number)


class Connections:
    """Takes what there is to say of the connections that requests use (`ctms.pool.PoolObserver`)."""

    def __init__(self, pool: Pool, registry: CollectorRegistry) -> None:
        self._pool = pool
        self._limit = Gauge(
            "ctms_database_connections_limit",
            "Connections that the processes may open for requests.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        connections = Gauge(
            "ctms_database_connections",
            "Connections that requests use, and requests that wait for one.",
            ["state"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._in_use = connections.labels("in_use")
        self._waiting = connections.labels("waiting")
        self._timeouts = Counter(
            "ctms_database_connection_timeouts", "Requests that waited for a connection in vain.", registry=registry
        )
        seconds = Times(
            "ctms_database_seconds",
            "How long requests waited for PostgreSQL, all statements of one request together.",
            ["kind"],
            buckets=DATABASE_BUCKETS,
            registry=registry,
        )
        self._seconds = {kind: seconds.labels(kind) for kind in ("read", "write")}

    def sample(self) -> None:
        """Say how many there are at this moment, and how many there may be."""
        self._limit.set(self._pool.max_size)
        self._in_use.set(self._pool.checkedout())

    @contextmanager
    def track_wait(self) -> Iterator[None]:
        """Count a request as waiting for a connection, inside."""
        with self._waiting.track_inprogress():
            yield

    def count_timeout(self) -> None:
        """Count a request that waited in vain."""
        self._timeouts.inc()

    def observe_time(self, kind: str, seconds: float) -> None:
        """Take how long a request waited for the database's answers: with all else about it, once it is answered."""
        if not note_wait(kind, seconds):
            self.waited(kind, [seconds])

    def waited(self, kind: str, seconds: Sequence[float]) -> None:
        """Count how long requests waited."""
        self._seconds[kind].observe_all(seconds)


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self, pool: Pool) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody looks at
        self.registry = CollectorRegistry()
        self.connections = Connections(pool, self.registry)
        self._seconds = Times(
            "ctms_requests_duration_seconds",
            "How long requests took.",
            ["method", "path_template", "status_code_family"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._requests = Counter(
            "ctms_requests",
            "Requests.",
            ["method", "path_template", "status_code", "status_code_family"],
            registry=self.registry,
        )
        self._api_requests = Counter(
            "ctms_api_requests",
            "Requests of verified API clients.",
            ["client_id", "method", "path_template", "status_code_family"],
            registry=self.registry,
        )
        self._token_failures = _by_cause(
            "ctms_token_failures", "Requests at /token that got none.", TokenFailure, self.registry
        )
        self._auth_failures = _by_cause(
            "ctms_auth_failures", "Requests of callers that were not let in.", AuthFailure, self.registry
        )
        self._rules_seconds = Histogram(
            "ctms_waitlist_rules_seconds",
            "How long the waitlist rules of plugins took, for one subscription each.",
            ["plugin"],
            buckets=RULES_BUCKETS,
            registry=self.registry,
        )
        self._rules_failures = Counter(
            "ctms_waitlist_rules_failures",
            "Unexpected errors of the waitlist rules of plugins: each failed a request.",
            ["plugin"],
            registry=self.registry,
        )
        self._families: dict[tuple[str, str], set[int]] = {}

    def expect(self, answers: Iterable[tuple[str, str, int]]) -> None:
        """Begin at 0 the series of these answers: method, path template, status."""
        for method, path_template, status in (*answers, ("GET", UNMATCHED, 404)):
            self._series(method, path_template, status)
            self._families.setdefault((method, path_template), set()).add(status // 100)

    def count(self, requests: Sequence[Finished]) -> None:
        """Count requests."""
        alike: defaultdict[Answer, list[Finished]] = defaultdict(list)
        for finished in requests:
            alike[finished.answer].append(finished)
        for answer, those in alike.items():
            number = len(those)
            seconds, counter = self._series(answer.method, answer.path_template, answer.status)
            seconds.observe_all([one.seconds for one in those])
            counter.inc(number)
            if answer.client_id is not None:
                family = answer.status // 100
                self._client_series(answer.client_id, answer.method, answer.path_template, family).inc(number)
            if answer.auth_fail is not None:
                self._auth_failures[answer.auth_fail].inc(number)
            if answer.token_fail is not None:
                self._token_failures[answer.token_fail].inc(number)
        self.connections.waited("read", [one.read for one in requests if one.read is not None])
        self.connections.waited("write", [one.write for one in requests if one.write is not None])

    def watch_rules(self, plugin: str) -> tuple[Histogram, Counter]:
        """Return what takes the times and counts the failures of the plugin's waitlist rules; both begin at 0."""
        return self._rules_seconds.labels(plugin), self._rules_failures.labels(plugin)

    # The labels of a metric are looked up in a dictionary under a lock; a request needs the same ones again.
    @cache  # noqa: B019  one object per app
    def _series(self, method: str, path_template: str, status: int) -> tuple[Times, Counter]:
        family = f"{status // 100}xx"
        return (
            self._seconds.labels(method, path_template, family),
            self._requests.labels(method, path_template, str(status), family),
        )

    @cache  # noqa: B019
    def _client_series(self, client_id: str, method: str, path_template: str, family: int) -> Counter:
        # With a client's first request of a kind begins what may become of the next ones: its errors start at 0.
        for other in self._families.get((method, path_template), ()):
            self._api_requests.labels(client_id, method, path_template, f"{other}xx")
        return self._api_requests.labels(client_id, method, path_template, f"{family}xx")


def _by_cause(
    name: str, help_text: str, causes: type[AuthFailure] | type[TokenFailure], registry: CollectorRegistry
) -> dict[str, Counter]:
    counter = Counter(name, help_text, ["cause"], registry=registry)
    return {cause: counter.labels(cause.value) for cause in causes}


class Scrape(Collector):
    """All that a scrape gets: what the processes counted, and what is asked for at this moment."""

    def __init__(self, metrics: Metrics, files: Slots | None, account: Account) -> None:
        self._metrics = metrics
        self._account = account
        self._files = files
        self._census = Census(files)

    def collect(self) -> Iterator[Metric]:
        """Give the metrics, each once for the whole instance. Inside an app's context."""
        self._metrics.connections.sample()
        self._account.settle()
        if self._files is None:
            yield from self._metrics.registry.collect()
        else:
            yield from MultiProcessCollector.merge(self._files.files())  # type: ignore[no-untyped-call]
        yield GaugeMetricFamily(
            "ctms_metrics_files_bytes",
            "Disk that the files of metrics take.",
            self._files.size() if self._files else 0,
        )
        counts = self._census.take()
        if counts is not None:
            for name, text, value in (
                ("ctms_contacts_total", "Contacts, as PostgreSQL's planner estimates them.", counts.contacts),
                ("ctms_erasures_open", "Erasures that a handler or backend has not finished.", counts.erasures_open),
                ("ctms_erasures_oldest_seconds", "Age of the oldest open erasure.", counts.erasures_oldest),
            ):
                yield GaugeMetricFamily(name, text, value)


class Exporter(PrometheusMetrics):  # type: ignore[misc]
    """prometheus-flask-exporter's `/metrics`, with what `Scrape` collects."""

    def __init__(self, scrape: Scrape, registry: CollectorRegistry) -> None:
        super().__init__(
            app=None,
            path="/metrics",
            export_defaults=False,
            registry=registry,
            metrics_decorator=_compress_on_request,
        )
        self._scrape = scrape

    def generate_metrics(self, accept_header: str | None = None, names: list[str] | None = None) -> tuple[str, str]:
        """Return the text and its type; only the metrics named, if any are (`?name[]=`)."""
        encode, content_type = choose_encoder(accept_header or "")
        return encode(_Chosen(self._scrape, set(names or ()))).decode(), content_type


def _compress_on_request(view: Callable[[], Any]) -> Callable[[], Response]:
    """Compress what the view answers where the client accepts gzip, as Prometheus does."""

    @wraps(view)
    def compressed() -> Response:
        response = make_response(view())
        response.vary.update(("Accept", "Accept-Encoding"))
        if current_request().accept_encodings["gzip"] > 0:  # 0: refused, or not mentioned
            response.data = gzip.compress(response.data, mtime=0)
            response.content_encoding = "gzip"
        return response

    return compressed


class _Chosen(Collector):
    def __init__(self, scrape: Scrape, names: set[str]) -> None:
        self._scrape = scrape
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for metric in self._scrape.collect():
            if not self._names or self._names & {metric.name, *(sample.name for sample in metric.samples)}:
                yield metric


def init_metrics(app: Flask, metrics: Metrics, files: Slots | None, account: Account) -> None:
    """Serve `/metrics`, what the account has taken included. The app's pool is watched from now on."""
    app.extensions["ctms.pool"].observer = metrics.connections
    Exporter(Scrape(metrics, files, account), metrics.registry).init_app(app)
