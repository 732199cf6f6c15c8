"""Parsing the text of `/metrics`."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a series and its labels."""


@lru_cache(maxsize=8)  # tests look for hundreds of series in one text
def series(text: str) -> dict[Series, float]:
    """Return the values of all series."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def values(text: str, name: str, **labels: str) -> dict[tuple[str, ...], float]:
    """Return the values of the series with a name and labels, by the values of their other labels."""
    return {
        tuple(value for label, value in found if label not in labels): number
        for (sample, found), number in series(text).items()
        if sample == name and labels.items() <= dict(found).items()
    }


def total(text: str, name: str, **labels: str) -> float:
    """Return the sum of these series."""
    return sum(values(text, name, **labels).values())
