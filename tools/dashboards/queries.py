"""PromQL queries with placeholders for common matchers."""

from __future__ import annotations

from tools.dashboards.grafana import Query

PLACEHOLDERS = {
    "ENV": 'environment="$environment"',  # the selected environment
    "API": 'path_template!~"/__.*|/metrics"',  # without health checks and scrapes
    "[R]": "[$__rate_interval]",  # the range that Grafana recommends for rates
}


def query(expr: str, legend: str = "") -> Query:
    """Return the query for `expr` with its placeholders replaced."""
    for placeholder, text in PLACEHOLDERS.items():
        expr = expr.replace(placeholder, text)
    return Query(expr, legend)
