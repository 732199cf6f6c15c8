"""The monitoring configuration, parsed for tests: dashboards, alerts, and the metrics in their queries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "deploy" / "monitoring"
RULES = FOLDER / "prometheus" / "rules"
RULES_TESTS = Path(__file__).parent / "rules"
RUNBOOKS = ROOT / "docs" / "runbooks"

_METRIC = re.compile(r"\b((?:ctms_|prometheus_)\w+|up|ALERTS)\b(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)")
_WORDS = {"and", "on", "or", "time", "unless", "vector"} | {
    *("absent", "count", "histogram_quantile", "increase", "last_over_time", "max", "min", "min_over_time", "rate"),
    *("sum", "by"),
}
"""The words of PromQL that we use."""


@dataclass(frozen=True)
class Selector:
    """A metric in a query, and its matchers: label, operator, value."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Panel:
    """A panel of a dashboard, without its look."""

    dashboard: str
    row: str
    title: str
    description: str
    targets: tuple[dict[str, Any], ...]
    thresholds: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.row}: {self.title}"


@dataclass(frozen=True)
class Alert:
    """An alert rule."""

    name: str
    expr: str
    severity: str
    summary: str
    runbook: str
    file: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}-{self.severity}"


@cache
def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards by their names."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "grafana").glob("*.json"))}


def panels() -> list[Panel]:
    """Return all panels."""
    found: list[Panel] = []
    for name, dashboard in dashboards().items():
        row = ""
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
                continue
            steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
            thresholds = tuple(step["value"] for step in steps if step["value"] is not None)
            found.append(Panel(name, row, panel["title"], panel["description"], tuple(panel["targets"]), thresholds))
    return found


@cache
def alerts() -> tuple[Alert, ...]:
    """Return all alert rules."""
    found: list[Alert] = []
    for path in sorted(RULES.glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                notes = rule["annotations"]
                found.append(
                    Alert(
                        rule["alert"],
                        rule["expr"],
                        rule["labels"]["severity"],
                        notes["summary"],
                        notes["runbook"],
                        path.name,
                    )
                )
    return tuple(found)


def selectors(expr: str) -> list[Selector]:
    """Return the metrics that a PromQL query names. Raises `ValueError` at a word that is neither that nor known."""
    rest = _GROUPING.sub(" ", re.sub(r"\[[^\]]*\]", "", _METRIC.sub(" ", expr)))
    unknown = set(re.findall(r"[a-zA-Z_]\w*", rest)) - _WORDS
    if unknown:
        raise ValueError(f"{sorted(unknown)} in {expr}")
    return [Selector(name, tuple(_MATCHER.findall(body or ""))) for name, body in _METRIC.findall(expr)]


def grouped(expr: str) -> set[str]:
    """Return the labels that a PromQL query groups or joins by."""
    return {label.strip() for labels in _GROUPING.findall(expr) for label in labels.split(",")}


def measurements(query: str) -> tuple[set[str], set[str]]:
    """Return the metrics and the labels that an InfluxQL query names."""
    metrics = set(re.findall(r'FROM "(\w+)"', query))
    made = set(re.findall(r'AS "(\w+)"', query))
    return metrics, set(re.findall(r'"(\w+)"', query)) - metrics - made - {"value"}


def queries() -> Iterator[tuple[str, str, str]]:
    """Yield every PromQL query: its place, the query, and the text with labels of its result."""
    for panel in panels():
        for target in panel.targets:
            if "expr" in target:
                yield str(panel), target["expr"], target["legendFormat"]
    for alert in alerts():
        yield str(alert), alert.expr, alert.summary
