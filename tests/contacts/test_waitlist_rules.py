"""The rules that decide about a waitlist, and their metrics."""

from __future__ import annotations

import logging
from typing import Any

import marshmallow as ma
import pytest

from ctms.contacts.waitlist_rules import WaitlistRegistry
from ctms.errors import LoggedError
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import Waitlist


class PluginMetrics:
    """The metrics of one plugin."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.failed = 0

    def observe(self, amount: float) -> None:
        self.seconds.append(amount)

    def inc(self) -> None:
        self.failed += 1


def declared(name: str, plugin: str = "plugin", check: Any = dict) -> Registered[Waitlist]:
    """Return a waitlist of a plugin."""
    return Registered(Plugin(plugin, "package", "1"), Waitlist(name=name, title=name, check=check))


def marked(*names: str) -> WaitlistRegistry:
    """Return waitlists whose rules return their name."""
    return WaitlistRegistry([declared(name, check=lambda _, name=name: {"by": name}) for name in names])


NAMES = ("*", "re*", "relay-*", "relay-x", "vpn")


class TestExactness:
    @pytest.mark.parametrize(
        ("name", "decides"),
        [
            ("vpn", "vpn"),
            ("relay-x", "relay-x"),
            ("relay-y", "relay-*"),
            ("relay-", "relay-*"),
            ("relay", "re*"),
            ("Relay-x", "*"),
            ("vpn2", "*"),
            ("*", "*"),
            ("relay-*", "relay-*"),
        ],
    )
    def test_the_most_exact_declaration_decides(self, name: str, decides: str) -> None:
        for order in (NAMES, reversed(NAMES)):
            waitlists = marked(*order)
            found = waitlists.rules_for(name)
            assert found is not None
            assert found.value.name == decides
            assert waitlists.validate(name, {}) == {"by": decides}

    def test_they_are_listed_by_exactness(self) -> None:
        listed = [one.value.name for one in marked("*", "re*", "vpn", "relay-*", "abc-de*", "relay-x").declared]

        assert listed == ["relay-x", "vpn", "abc-de*", "relay-*", "re*", "*"]

    def test_where_nothing_fits_the_fields_stay_as_they_are(self) -> None:
        waitlists = marked("vpn", "re*")

        assert waitlists.rules_for("other") is None
        assert waitlists.validate("other", {"a": 1}) == {"a": 1}

    def test_the_cache_of_arbitrary_names_is_limited(self) -> None:
        waitlists = marked("*")
        for number in range(3000):
            waitlists.validate(f"list-{number}", {})

        assert waitlists._rules.cache_info().currsize <= 1024


class TestMetrics:
    @pytest.fixture
    def watched(self) -> dict[str, PluginMetrics]:
        return {"good": PluginMetrics(), "refusing": PluginMetrics(), "broken": PluginMetrics()}

    @pytest.fixture
    def waitlists(self, watched: dict[str, PluginMetrics]) -> WaitlistRegistry:
        def refuse(_: Any) -> Any:
            raise ma.ValidationError({"a": ["bad"]})

        def fail(fields: Any) -> Any:
            raise RuntimeError(fields)

        def metrics_of(plugin: str) -> tuple[PluginMetrics, PluginMetrics]:
            return watched[plugin], watched[plugin]

        return WaitlistRegistry(
            [declared("good", "good"), declared("refusing", "refusing", refuse), declared("broken", "broken", fail)],
            metrics_of,
        )

    def test_good_and_bad_fields_take_time_and_are_no_failures(
        self, waitlists: WaitlistRegistry, watched: dict[str, PluginMetrics]
    ) -> None:
        waitlists.validate("good", {})
        waitlists.validate("good", {})
        with pytest.raises(ma.ValidationError):
            waitlists.validate("refusing", {})

        assert [len(watched[plugin].seconds) for plugin in ("good", "refusing", "broken")] == [2, 1, 0]
        assert all(0 < seconds < 60 for seconds in watched["good"].seconds)
        assert [one.failed for one in watched.values()] == [0, 0, 0]

    def test_an_unexpected_error_is_counted_and_logged_with_the_plugin(
        self, waitlists: WaitlistRegistry, watched: dict[str, PluginMetrics], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR), pytest.raises(LoggedError):
            waitlists.validate("broken", {})

        assert (watched["broken"].failed, len(watched["broken"].seconds)) == (1, 1)
        (record,) = [record for record in caplog.records if record.name == "ctms.contacts.waitlist_rules"]
        assert record.__dict__["plugin"] == "broken"
        assert waitlists.validate("good", {}) == {}
