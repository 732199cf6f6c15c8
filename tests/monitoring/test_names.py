"""Dashboards and alerts name metrics and labels that are really exported."""

from __future__ import annotations

import re

import pytest

from tests.monitoring import definitions
from tests.monitoring.exported import SCRAPED, Exported

QUERIES = [pytest.param(expr, text, id=place) for place, expr, text in definitions.queries()]
INFLUX = [
    pytest.param(target["query"], target["alias"], id=str(panel))
    for panel in definitions.panels()
    for target in panel.targets
    if "query" in target
]


@pytest.mark.parametrize(("expr", "text"), QUERIES)
def test_queries_use_exported_metrics(expr: str, text: str, exported: Exported) -> None:
    selectors = definitions.selectors(expr)
    assert selectors
    known: set[str] = set()
    for selector in selectors:
        assert selector.metric in exported.labels, f"nobody exports {selector.metric}"
        labels = exported.labels[selector.metric]
        for label, operator, value in selector.matchers:
            assert label in labels, f"{selector.metric} has no label {label}"
            assert exported.may_be(selector.metric, label, operator, value), f"{label} of {selector.metric}: {value}"
        known |= labels

    grouped = definitions.grouped(expr)
    assert grouped <= known, f"no metric has {grouped - known}"
    shown = set(re.findall(r"\{\{ ?(?:\$labels\.)?(\w+) ?\}\}", text))
    assert shown <= (grouped or known), f"{shown} are not labels of the answer"


@pytest.mark.parametrize(("query", "alias"), INFLUX)
def test_influxdb_queries_use_exported_metrics(query: str, alias: str, exported: Exported) -> None:
    metrics, labels = definitions.measurements(query)

    assert metrics
    assert metrics <= set(exported.labels)
    for metric in metrics:
        assert labels <= exported.labels[metric]
    assert set(re.findall(r"\$tag_(\w+)", alias)) <= labels


def test_no_metric_has_a_label_that_prometheus_gives(exported: Exported) -> None:
    taken = {name for name, label in exported.values if label in SCRAPED}

    assert taken == set()


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        ("sum(rate(ctm_requests_total[5m]))", "ctm_requests_total"),
        ("sum by (environment) (requests)", "requests"),
    ],
)
def test_a_misspelt_metric_is_noticed(expr: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        definitions.selectors(expr)


def test_a_query_is_read() -> None:
    expr = 'max by (a, b) (ctms_x{c="d", e=~"f|g"}[5m]) - on (a) up > 0'

    assert definitions.selectors(expr) == [
        definitions.Selector("ctms_x", (("c", "=", "d"), ("e", "=~", "f|g"))),
        definitions.Selector("up", ()),
    ]
    assert definitions.grouped(expr) == {"a", "b"}
