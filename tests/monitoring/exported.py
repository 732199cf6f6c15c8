"""The metrics that the service really exports, with their labels."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

SCRAPED = {"environment", "instance", "job"}
"""The labels that Prometheus adds."""

PROMETHEUS_LABELS = {
    "up": SCRAPED,
    "ALERTS": SCRAPED | {"alertname", "alertstate", "severity"},
    "prometheus_remote_storage_highest_timestamp_in_seconds": SCRAPED,
    "prometheus_remote_storage_queue_highest_sent_timestamp_seconds": SCRAPED | {"remote_name", "url"},
}
"""Metrics of Prometheus itself that are used."""


@dataclass
class Exported:
    """Names as they are queried; `labels` of each, and of each label the values that are known, if any are."""

    labels: dict[str, set[str]] = field(default_factory=lambda: {k: set(v) for k, v in PROMETHEUS_LABELS.items()})
    values: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))

    def add_text(self, text: str) -> None:
        """Add the result of a scrape."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self.labels.setdefault(sample.name, set(SCRAPED)).update(sample.labels)
                for label, value in sample.labels.items():
                    self.values[sample.name, label].add(value)

    def add_registry(self, registry: CollectorRegistry) -> None:
        """Add the metrics of a registry, including those without series."""
        for collector, names in registry._collector_to_names.items():
            assert isinstance(collector, MetricWrapperBase)
            for name in names:
                labels = self.labels.setdefault(name, set(SCRAPED))
                labels.update(collector._labelnames, {"le"} if name.endswith("_bucket") else ())

    def may_be(self, metric: str, label: str, operator: str, value: str) -> bool:
        """Return whether a query's values are possible: unknown, or one of the known ones."""
        known = self.values.get((metric, label))
        if not known or "$" in value:
            return True
        pattern = value if operator in {"=~", "!~"} else re.escape(value)
        return any(re.fullmatch(pattern, one) for one in known)
