"""The metrics of the API, at `/metrics`, by prometheus-flask-exporter: the documented `ctms_*` ones.

With several processes the values are kept in files (`PROMETHEUS_MULTIPROC_DIR`, which `flask ctms serve` sets) and
summed at a scrape.
"""

from __future__ import annotations

import time

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_flask_exporter import PrometheusMetrics

from ctms.telemetry.logs import path_template

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10)
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

    def count(self, response: Response) -> Response:
        """Count the request that `response` answers."""
        method = request.method if request.method in METHODS else "other"
        template = path_template()
        code = response.status_code
        family = f"{code // 100}xx"
        self._seconds.labels(method, template, family).observe(time.perf_counter() - g.started)
        self._requests.labels(method, template, str(code), family).inc()
        if "client_id" in g:
            self._api_requests.labels(g.client_id, method, template, family).inc()
        return response


def init_metrics(app: Flask) -> None:
    """Count every request, and serve `/metrics`."""
    metrics = Metrics()
    app.after_request(metrics.count)
    exporter = PrometheusMetrics(app=None, path="/metrics", export_defaults=False, registry=metrics.registry)
    exporter.init_app(app)
