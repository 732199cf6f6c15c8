"""Metrics of waitlist rules, and the histogram of batches."""

from __future__ import annotations

import re
from collections.abc import Iterator

import marshmallow as ma
import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from ctms.contacts.waitlist_rules import WaitlistRegistry
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import Waitlist, hookimpl
from ctms.telemetry.metrics import ApiMetrics, BatchHistogram
from tests.contacts.factories import minimal
from tests.http import ApiClient, assert_error


class Breaking:
    """A plugin whose rules reject `bad` and crash on `broken`."""

    @hookimpl
    def ctms_waitlists(self) -> Iterator[Waitlist]:
        yield Waitlist(name="breaking", title="Breaking", check=self.check)

    @staticmethod
    def check(fields: dict[str, object]) -> dict[str, object]:
        if "bad" in fields:
            raise ma.ValidationError({"bad": ["Should not be there"]})
        if "broken" in fields:
            raise RuntimeError("for a test")
        return fields


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [Breaking, "vpn"]


def series(text: str) -> dict[str, float]:
    """Return the sums and counts of the rules' metrics."""
    found = re.findall(r"^(ctms_waitlist_rules_\w+(?:count|total)\{.*\}) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_durations_and_failures_are_counted_by_plugin(api: ApiClient, anonymous: ApiClient) -> None:
    before = series(anonymous.get("/metrics").text)

    for fields, status in (({}, 201), ({"bad": 1}, 422), ({"broken": 1}, 500), ({"broken": 2}, 500)):
        answer = api.post("/ctms", {**minimal(), "waitlists": [{"name": "breaking", "fields": fields}]})
        assert answer.status_code == status
        if status == 500:
            assert_error(answer, 500, "Internal Server Error")

    after = series(anonymous.get("/metrics").text)
    assert {name: value - before[name] for name, value in after.items()} == {
        'ctms_waitlist_rules_seconds_count{plugin="breaking"}': 4,
        'ctms_waitlist_rules_seconds_count{plugin="vpn"}': 0,
        'ctms_waitlist_rules_failures_total{plugin="breaking"}': 2,
        'ctms_waitlist_rules_failures_total{plugin="vpn"}': 0,
    }


def test_a_failing_rule_rolls_back_the_request(api: ApiClient) -> None:
    contact = api.post("/ctms", minimal()).json
    path = f"/ctms/{contact['email']['email_id']}"
    entries = [{"name": "vpn"}, {"name": "breaking", "fields": {"broken": 1}}]

    assert_error(api.patch(path, {"waitlists": entries}), 500)

    assert api.get(path).json == contact
    assert api.patch(path, {"waitlists": entries[:1]}).status_code == 200


def test_series_start_at_zero_and_have_plugin_names_only(app: Flask) -> None:
    metrics = ApiMetrics(app.extensions["ctms.pool"])
    plugin = Plugin("bundled", "package", "1")
    waitlists = WaitlistRegistry(
        [Registered(plugin, Waitlist(name="*", title="Any", check=dict))], metrics.create_rule_metrics
    )

    start = series(generate_latest(metrics.registry).decode())
    for number in range(10):
        waitlists.validate(f"made-up-{number}", {})
    end = series(generate_latest(metrics.registry).decode())

    assert start == {
        'ctms_waitlist_rules_seconds_count{plugin="bundled"}': 0,
        'ctms_waitlist_rules_failures_total{plugin="bundled"}': 0,
    }
    assert end.keys() == start.keys()
    assert end['ctms_waitlist_rules_seconds_count{plugin="bundled"}'] == 10


def test_a_batch_histogram_is_a_histogram() -> None:
    """`BatchHistogram` uses private attributes of prometheus_client: without them, call `observe` for each value."""
    values = [0.0, 0.05, 0.1, 0.11, 1.0, 7.0, 7.0]
    texts = []
    for kind in (Histogram, BatchHistogram):
        registry = CollectorRegistry()
        histogram = kind("seconds", "Durations.", ["route"], buckets=(0.1, 1), registry=registry).labels("/")
        if isinstance(histogram, BatchHistogram):
            histogram.observe_many(values[:3])
            histogram.observe_many([])
            histogram.observe_many(values[3:])
        else:
            for value in values:
                histogram.observe(value)
        texts.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])

    assert texts[0] == texts[1]
    assert 'seconds_bucket{le="0.1",route="/"} 3.0' in texts[1]
