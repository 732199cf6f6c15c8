"""The metrics of the API, at `/metrics`, by prometheus-flask-exporter: the documented `ctms_*` ones.

With several processes the values are kept in files (`PROMETHEUS_MULTIPROC_DIR`, which `flask ctms serve` sets) and
summed at a scrape.
"""

from __future__ import annotations

from functools import cache

from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_flask_exporter import PrometheusMetrics

from ctms.telemetry.requests import Finished

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10)
RULES_BUCKETS = (0.00001, 0.0001, 0.001, 0.01, 0.1, 1)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
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

    def count(self, finished: Finished) -> None:
        """Count a request."""
        method = finished.method if finished.method in METHODS else "other"
        seconds, requests = self._series(method, finished.path_template, finished.status)
        seconds.observe(finished.seconds)
        requests.inc()
        if finished.client_id is not None:
            self._client_series(finished.client_id, method, finished.path_template, finished.status // 100).inc()

    def watch_rules(self, plugin: str) -> tuple[Histogram, Counter]:
        """Return what takes the times and counts the failures of the plugin's waitlist rules; both begin at 0."""
        return self._rules_seconds.labels(plugin), self._rules_failures.labels(plugin)

    # The labels of a metric are looked up in a dictionary under a lock; a request needs the same ones again.
    @cache  # noqa: B019  one object per app
    def _series(self, method: str, path_template: str, status: int) -> tuple[Histogram, Counter]:
        family = f"{status // 100}xx"
        return (
            self._seconds.labels(method, path_template, family),
            self._requests.labels(method, path_template, str(status), family),
        )

    @cache  # noqa: B019
    def _client_series(self, client_id: str, method: str, path_template: str, family: int) -> Counter:
        return self._api_requests.labels(client_id, method, path_template, f"{family}xx")


def init_metrics(app: Flask) -> Metrics:
    """Serve `/metrics`; what is returned counts the requests."""
    metrics = Metrics()
    exporter = PrometheusMetrics(app=None, path="/metrics", export_defaults=False, registry=metrics.registry)
    exporter.init_app(app)
    return metrics
