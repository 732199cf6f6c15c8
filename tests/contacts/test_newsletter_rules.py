"""The rule for new subscriptions: which are suspects, which are new, and what is counted and logged."""

from __future__ import annotations

import logging
from typing import Any, cast
from uuid import uuid4

import marshmallow as ma
import pytest
from flask import Flask

from ctms.contacts.newsletter_rules import (
    NewsletterRegistry,
    SubscriptionCheck,
    SubscriptionFault,
    check_subscriptions,
    init_newsletter_registry,
)
from ctms.database.pool import Connection
from ctms.errors import SettingsError
from ctms.hooks.plugin import Plugin, Registered
from ctms.plugins import Newsletter
from ctms.settings import NewslettersMode

UNKNOWN, RETIRED = SubscriptionFault.UNKNOWN, SubscriptionFault.RETIRED


def declared(slug: str, **members: Any) -> Registered[Newsletter]:
    """Return a newsletter of a plugin."""
    return Registered(Plugin("plugin", "package", "1"), Newsletter(slug=slug, title=slug, **members))


class Counted:
    """A registry with an active and a retired newsletter, and what it counts."""

    def __init__(self, mode: NewslettersMode) -> None:
        self.counts: list[tuple[SubscriptionFault, bool]] = []
        newsletters = [declared("weekly"), declared("old", active=False)]
        self.registry = NewsletterRegistry(newsletters, mode, lambda *one: self.counts.append(one))


ENTRIES: list[dict[str, Any]] = [
    {"name": "weekly"},
    {"name": "old"},
    {"name": "Weekly", "subscribed": True},
    {"name": "old", "subscribed": False},
    {"name": "other", "subscribed": False},
]


@pytest.mark.parametrize("mode", ["warn", "enforce"])
def test_suspects_subscribe_to_what_is_unknown_or_retired(mode: NewslettersMode) -> None:
    assert Counted(mode).registry.suspects(ENTRIES) == ["old", "Weekly"]


@pytest.mark.parametrize("entries", [None, [], "UNSUBSCRIBE"])
def test_nothing_and_keywords_have_no_suspects(entries: Any) -> None:
    counted = Counted("enforce")

    assert counted.registry.suspects(entries) == []
    assert counted.registry.check(entries, {}) == {}


def test_off_suspects_nothing_and_counts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted("off")

    assert counted.registry.suspects(ENTRIES) == []
    assert counted.registry.check(ENTRIES, {}) == {}
    assert counted.counts == []
    assert caplog.records == []


@pytest.mark.parametrize(
    ("entry", "stored", "is_new"),
    [
        ({}, None, True),
        ({"subscribed": True}, None, True),
        ({}, True, False),
        ({"subscribed": True}, True, False),
        ({"subscribed": True}, False, True),
        ({"lang": "de"}, False, False),  # a PATCH that leaves it unsubscribed
    ],
)
def test_a_subscription_is_new_if_none_is_stored_or_that_ended(
    entry: dict[str, Any], stored: bool | None, is_new: bool
) -> None:
    for name, fault, kind in (("old", RETIRED, "newsletter_retired"), ("other", UNKNOWN, "newsletter_unknown")):
        counted = Counted("enforce")

        refused = counted.registry.check([{"name": name, **entry}], {} if stored is None else {name: stored})

        assert [(index, message.type) for index, message in refused.items()] == ([(0, kind)] if is_new else [])
        assert counted.counts == ([(fault, True)] if is_new else [])


def test_warn_refuses_nothing_and_logs_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    counted = Counted("warn")

    with caplog.at_level(logging.WARNING):
        assert counted.registry.check(ENTRIES, {}) == {}

    assert counted.counts == [(RETIRED, False), (UNKNOWN, False)]
    assert caplog.messages == [
        "new subscription to a newsletter that is retired: old",
        "new subscription to a newsletter that is unknown: Weekly",
    ]
    assert [(vars(one)["newsletter"], vars(one)["cause"]) for one in caplog.records] == [
        ("old", "retired"),
        ("Weekly", "unknown"),
    ]


@pytest.mark.parametrize("name", ["jane@example.com", "Jane Doe", "x" * 65, "", "a\nb", "ünï"])
def test_what_is_no_slug_is_not_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    Counted("warn").registry.check([{"name": name}], {})

    (record,) = caplog.records
    assert record.getMessage() == "new subscription to a newsletter that is unknown: (not shown)"
    assert vars(record)["newsletter"] == "(not shown)"


def test_declarations_are_listed_by_slug() -> None:
    registry = NewsletterRegistry([declared("b"), declared("a")])

    assert [one.value.slug for one in registry.declared] == ["a", "b"]


class Recorded:
    """A connection that records statements, and fails when a result is fetched."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def execute(self, statement: str, _values: Any) -> object:
        self.statements.append(" ".join(statement.split()[:2]))
        return object()


def test_only_suspects_are_looked_up_under_the_lock_and_without_waiting(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.extensions, "ctms.newsletter_registry", Counted("enforce").registry)
    harmless, suspicious = Recorded(), Recorded()

    SubscriptionCheck(cast(Connection, harmless), uuid4(), [{"name": "weekly"}, {"name": "x", "subscribed": False}])
    SubscriptionCheck(cast(Connection, suspicious), uuid4(), [{"name": "old"}])

    assert harmless.statements == []
    assert suspicious.statements == ["SELECT FROM", "SELECT name,"]


def test_errors_have_the_place_of_the_name(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.extensions, "ctms.newsletter_registry", Counted("enforce").registry)

    with pytest.raises(ma.ValidationError) as raised:
        check_subscriptions(ENTRIES, {"Weekly": True})

    assert raised.value.messages == {
        "newsletters": {1: {"name": ["Newsletter is retired and takes no new subscriptions"]}}
    }


def test_enforcing_without_declarations_is_refused() -> None:
    init_newsletter_registry(Flask("test"), [], "off")
    init_newsletter_registry(Flask("test"), [], "warn")

    with pytest.raises(SettingsError, match="CTMS_NEWSLETTERS is enforce, but no plugin declares newsletters"):
        init_newsletter_registry(Flask("test"), [], "enforce")
