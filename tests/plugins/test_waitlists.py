"""The bundled rules for waitlists, each a plugin: gone when it is off, listed when it is on, does its job, refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest

from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.database.engine import release_database
from ctms.settings import Settings
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.contacts import contact_body
from ctms.testing.http import Answer, ApiClient, assert_error
from ctms.testing.plugins import bundled
from tests.cli.running import run

LONG = "x" * 101


@dataclass(frozen=True)
class Rule:
    """A plugin, its declaration, fields that it accepts, fields that it alone refuses and the place of the error."""

    plugin: str
    declares: str
    waitlist: str
    good: dict[str, Any]
    bad: dict[str, Any]
    at: str


RULES = [
    Rule("default_waitlist", "*", "other", {"geo": "de", "platform": None, "more": [1]}, {"geo": 5}, "geo"),
    Rule("default_waitlist", "*", "other", {"geo": "x" * 100}, {"platform": LONG}, "platform"),
    Rule("relay", "relay", "relay", {"geo": "de"}, {"geo": "de", "platform": "linux"}, "platform"),
    Rule("relay", "relay", "relay", {"geo": None}, {"more": 1}, "more"),
    Rule("vpn", "vpn", "vpn", {"geo": "de", "platform": "linux"}, {"geo": "de", "more": 1}, "more"),
    Rule("vpn", "vpn", "vpn", {"platform": None}, {"Geo": "de"}, "Geo"),
]
each_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.plugin}-{rule.at}")


def post(api: ApiClient, waitlist: str, fields: dict[str, Any]) -> Answer:
    """Try to make a contact that is on the waitlist."""
    return api.post("/ctms", contact_body(waitlists=[{"name": waitlist, "fields": fields}]))


@each_rule
def test_it_is_listed_when_it_is_on(api: ApiClient, rule: Rule) -> None:
    listed = {one["name"]: one for one in api.get("/waitlists").json}

    assert listed[rule.declares]["plugin"] == rule.plugin


@each_rule
def test_it_does_its_job(api: ApiClient, rule: Rule) -> None:
    made = post(api, rule.waitlist, rule.good)

    assert made.status_code == 201, made.text
    assert made.json["waitlists"][0]["fields"] == rule.good


@each_rule
def test_it_refuses_cleanly(api: ApiClient, rule: Rule) -> None:
    refused = post(api, rule.waitlist, rule.bad)

    assert_error(refused, 422, at=[["body", "waitlists", 0, "fields", rule.at]])
    assert LONG not in refused.text


@each_rule
def test_it_is_absent_when_it_is_off(apps: Apps, settings: Settings, rule: Rule) -> None:
    apps.get(bundled())  # makes the tables
    app = create_app(replace(settings, plugins_disabled=(rule.plugin,)), bundled())
    try:
        with rolled_back(app):
            api = ApiClient(app.test_client(), tokens().issue(create_client("id_off", roles=["admin"])))
            assert rule.declares not in {one["name"] for one in api.get("/waitlists").json}
            assert post(api, rule.waitlist, rule.bad).status_code == 201
    finally:
        release_database(app)


@pytest.mark.parametrize("plugin", sorted({rule.plugin for rule in RULES}))
def test_operators_see_it(cli: Any, monkeypatch: pytest.MonkeyPatch, plugin: str, settings: Settings) -> None:
    monkeypatch.setenv("CTMS_DB_URL", str(settings.db_url))
    monkeypatch.setenv("CTMS_SECRET_KEY", str(settings.secret_key))
    monkeypatch.setenv("CTMS_PLUGINS_DISABLED", plugin)

    rows = {row["name"]: row for row in json.loads(run(cli, "plugins", "list", "--json").stdout)}

    assert rows[plugin]["state"] == "off"
    assert rows[plugin]["why"] == "CTMS_PLUGINS_DISABLED names it"
