"""Queries, with words for what stands in most of them."""

from __future__ import annotations

from tools.dashboards.grafana import Query

WORDS = {
    "ENV": 'environment="$environment"',  # the environment that is looked at
    "API": 'path_template!~"/__.*|/metrics"',  # without the requests of those who watch
    "[R]": "[$__rate_interval]",  # the range that Grafana thinks fit for a rate
}


def query(expr: str, legend: str = "") -> Query:
    """Return the query for `expr`, its words replaced by what they stand for."""
    for word, meaning in WORDS.items():
        expr = expr.replace(word, meaning)
    return Query(expr, legend)
