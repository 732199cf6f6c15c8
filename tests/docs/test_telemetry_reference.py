"""The pages about metrics and logs list exactly what is exported and logged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from ctms.clients.refusals import AuthFailure, TokenFailure
from ctms.clients.tokens import tokens
from ctms.database.replicas import ReplicaRead
from ctms.outbox.lanes import Lane
from ctms.settings import Settings
from ctms.telemetry.logs import init_logs
from ctms.telemetry.metrics import BUCKETS, ApiMetrics
from ctms.telemetry.requests import METHODS
from ctms.worker import metrics as worker
from tests.clients.factories import create_client
from tests.docs.pages import DOCS
from tests.http import ApiClient

METRICS = (DOCS / "reference" / "metrics.md").read_text()
LOGS = (DOCS / "reference" / "logs.md").read_text()
API, WORKER = METRICS[METRICS.index("## The API") :].split("## The background service")

Described = dict[str, tuple[str, frozenset[str]]]
"""The type and the labels of a metric, by its name."""


def words(text: str) -> frozenset[str]:
    """Return the words in code style."""
    return frozenset(re.findall(r"`(\w+)`", text))


def documented(part: str = API) -> Described:
    rows = re.findall(r"^\| `(ctms_\w+)` \| (\w+) \| ([^|]*) \| [^|]+ \|$", part, re.MULTILINE)
    assert len(rows) == len(dict.fromkeys(name for name, _, _ in rows))
    return {name: (kind, words(labels)) for name, kind, labels in rows}


def with_their_labels(registry: CollectorRegistry) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Yield the metrics that processes count, with types and labels, even without series."""
    for collector in list(registry._collector_to_names):
        assert isinstance(collector, MetricWrapperBase)
        suffix = "_total" if collector._type == "counter" else ""
        yield collector._name + suffix, str(collector._type), frozenset(collector._labelnames)


def test_every_metric_is_documented_and_every_documented_one_is_exported(app: Flask, anonymous: ApiClient) -> None:
    metrics = ApiMetrics(app.extensions["ctms.pool"])
    counted = {name: labels for name, _, labels in with_their_labels(metrics.registry)}
    exported: Described = {}
    for family in text_string_to_metric_families(anonymous.get("/metrics").text):
        # The parser takes a counter's ending from its family; a gauge may have it.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        exported[name] = (family.type, counted.get(name, frozenset()))

    assert set(counted) <= set(exported)
    assert exported == documented()


def test_how_to_combine_instances_is_documented_for_every_gauge() -> None:
    gauges = [name for part in (API, WORKER) for name, (kind, _) in documented(part).items() if kind == "gauge"]
    text = (DOCS / "how-to" / "monitor.md").read_text()
    section = text[text.index("## Several instances") : text.index("## Set up InfluxDB")]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)

    named = [name for metrics, _ in rows for name in re.findall(r"`(ctms_\w+)`", metrics)]

    assert sorted(named) == sorted(gauges)


def test_every_metric_of_the_background_service_is_documented() -> None:
    lanes = [Lane(kind, "mailing", 0) for kind in worker.METHODS]
    registry = worker.WorkerMetrics(lanes, retention=True).registry
    exported = {name: (kind, labels) for name, kind, labels in with_their_labels(registry)}

    assert exported == documented(WORKER)
    assert f"buckets {', '.join(map(str, worker.BUCKETS))}." in WORKER
    values = {*worker.STATUSES.values(), *worker.VERDICTS.values(), *sum(worker.METHODS.values(), ())}
    assert values <= words(WORKER)


def test_most_metrics_have_advice() -> None:
    advice = set(
        re.findall(r"`(ctms_\w+)`", METRICS[METRICS.index("### Interpretation") : METRICS.index("### Labels")])
    )

    assert advice <= set(documented())
    assert len(advice) > len(documented()) / 2


def test_label_values_and_buckets_are_those_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`((?: of `\w+`)? \|[^|]+) \|$", METRICS, re.MULTILINE))
    causes = dict(re.findall(r"^\| `cause` of `(\w+)` \| ([^|]+) \|$", METRICS, re.MULTILINE))

    assert words(rows["method"]) == METHODS | {"other"}
    assert words(causes["ctms_auth_failures_total"]) == set(AuthFailure)
    assert words(causes["ctms_token_failures_total"]) == set(TokenFailure)
    assert words(rows["result"]) == set(ReplicaRead)
    assert f"buckets {', '.join(map(str, BUCKETS))}." in METRICS


@pytest.fixture
def mozlog(app: Flask) -> Iterator[None]:
    settings: Settings = app.extensions["ctms.settings"]
    init_logs(replace(settings, use_mozlog=True))
    yield
    init_logs(settings)


@pytest.mark.usefixtures("mozlog")
def test_every_field_of_a_request_is_documented(app: Flask, capfd: pytest.CaptureFixture[str]) -> None:
    for token in (None, tokens().issue(create_client("id_powerless"))):
        ApiClient(app.test_client(), token).get("/updates")
    ApiClient(app.test_client(), None).request("POST", "/token", data={"grant_type": "x"})

    summaries = [json.loads(line)["Fields"] for line in capfd.readouterr().err.splitlines()]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", LOGS, re.MULTILINE))
    assert set().union(*summaries) == set(rows)
    assert set.intersection(*map(set, summaries)) == {name for name, when in rows.items() if when == "always"}
