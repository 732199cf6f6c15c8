"""The fixtures that plugin authors test with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.engine import make_url

import ctms_plugins.relay
from ctms.database import pool
from ctms.database.engine import db
from ctms.errors import PluginError
from ctms.plugins import HealthCheck, hookimpl, setting
from ctms.testing import ApiClient, contact_body
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.commands import CommandRunner
from ctms.testing.plugins import InMemoryEntryPoint, bundled, points_of, under_test
from tests.sessions import client_sessions
from tests.waiting import wait_until

BUNDLED = ["braze", "declared", "default_waitlist", "jsonl", "relay", "vpn", "webhook"]


def loaded(app: Flask) -> list[str]:
    """Return the names of the app's plugins."""
    return [plugin.name for plugin in app.extensions["ctms.plugins"]]


class Greeter:
    """A plugin with a setting and a command."""

    @dataclass(frozen=True)
    class Settings:
        """The plugin's settings."""

        word: str = setting("WORD", "What it says.", default="hello")

    @hookimpl
    def ctms_commands(self, settings: Settings) -> Iterator[click.Command]:
        """Declare the command."""
        yield click.Command("greet", callback=lambda: click.echo(settings.word))


class Checker:
    """A plugin with a health check."""

    @hookimpl
    def ctms_health_checks(self) -> Iterator[HealthCheck]:
        """Declare the check."""
        yield HealthCheck(name="weather", check=lambda: "it rains")


def test_the_plugins_are_the_bundled_ones_and_those_of_the_project(app: Flask) -> None:
    assert loaded(app) == BUNDLED


@pytest.mark.parametrize("ctms_plugins", [["vpn", ctms_plugins.relay, Greeter, Checker()]])
def test_a_test_chooses_plugins(app: Flask, anonymous: ApiClient) -> None:
    assert loaded(app) == ["checker", "greeter", "relay", "vpn"]
    assert anonymous.get("/__heartbeat__").json["details"]["weather"]["message"] == "it rains"


@pytest.mark.parametrize("ctms_plugins", [[]])
def test_no_plugin_is_loaded_that_is_not_asked_for(app: Flask, api: ApiClient) -> None:
    assert loaded(app) == []
    assert api.post("/ctms", contact_body(waitlists=[{"name": "relay", "fields": {"x": 1}}])).status_code == 201


def test_a_plugin_that_is_not_installed_is_named() -> None:
    with pytest.raises(LookupError, match=r"'hub'; the plugins are .*relay, vpn"):
        points_of(["hub"])


class TestSettingsOfPlugins:
    """`ctms_environment`."""

    @pytest.fixture
    def ctms_plugins(self) -> list[object]:
        return [Greeter]

    @pytest.fixture
    def ctms_environment(self) -> dict[str, str]:
        return {"CTMS_PLUGIN_GREETER_WORD": "moin"}

    def test_they_can_be_overridden(self, cli: CommandRunner) -> None:
        assert cli.ctms("greet").stdout == "moin\n"
        assert "CTMS_PLUGIN_GREETER_WORD" not in os.environ


def test_settings_of_the_developers_own_do_not_count(apps: Apps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_PLUGIN_GREETER_WORD", "from the outside")

    with rolled_back(apps.get([InMemoryEntryPoint("greeter", Greeter)])) as app:
        assert CommandRunner(app).ctms("greet").stdout == "hello\n"


def test_apps_are_cached_by_plugins_and_settings(apps: Apps) -> None:
    one, other = Checker(), Checker()

    assert apps.get(points_of([one])) is apps.get(points_of([one]))
    assert apps.get(points_of([one])) is not apps.get(points_of([other]))
    assert apps.get(points_of([Greeter])) is not apps.get(points_of([Greeter]), {"CTMS_PLUGIN_GREETER_WORD": "moin"})


def test_a_plugin_that_cannot_be_loaded_is_an_error_of_the_test(apps: Apps) -> None:
    with pytest.raises(PluginError, match="implements no hook"):
        apps.get(points_of([ModuleType("empty")]))


@pytest.mark.parametrize("turn", [1, 2])
def test_changes_of_a_test_are_rolled_back(turn: int, api: ApiClient, make_contact: Callable[..., Any]) -> None:  # noqa: ARG001
    make_contact(email={"primary_email": "same@example.com"})

    assert len(api.get("/ctms?primary_email=same@example.com").json) == 1


def test_a_contact_has_the_given_members(make_contact: Callable[..., dict[str, Any]]) -> None:
    contact = make_contact(email={"first_name": "Ada"}, newsletters=[{"name": "weekly"}])

    assert contact["email"]["first_name"] == "Ada"
    assert contact["email"]["primary_email"].endswith("@example.com")
    assert [entry["name"] for entry in contact["newsletters"]] == ["weekly"]


def test_a_contact_that_is_refused_fails_the_test(make_contact: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(AssertionError, match="primary_email"):
        make_contact(email={"primary_email": "nowhere"})


def test_routes_require_a_token(anonymous: ApiClient, api: ApiClient) -> None:
    assert anonymous.get("/updates?start=2026-01-01").status_code == 401
    assert api.get("/updates?start=2026-01-01").status_code == 200


class TestThePluginsOfAProject:
    """The plugins that a `pyproject.toml` declares."""

    def test_they_need_not_be_installed(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text('[project.entry-points.ctms]\nhub = "hub_plugin"\n')

        assert under_test(tmp_path) == [EntryPoint("hub", "hub_plugin", "ctms")]

    def test_those_that_are_installed_have_a_package(self, pytestconfig: pytest.Config) -> None:
        found = under_test(pytestconfig.rootpath)

        assert [point.name for point in found] == [point.name for point in bundled()] == BUNDLED
        assert {point.dist.name for point in found if point.dist} == {"ctms"}

    def test_one_without_plugins_has_none(self, tmp_path: Path) -> None:
        assert under_test(tmp_path) == []
        (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
        assert under_test(tmp_path) == []

    def test_bundled_are_those_that_ctms_brings(self) -> None:
        assert {point.name for point in bundled()} <= {point.name for point in entry_points(group="ctms")}


@pytest.mark.usefixtures("app")
def test_a_slow_test_keeps_its_transaction() -> None:
    with pool.acquire() as connection:
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


_OF_A_SERVER = """
from ctms.testing.servers import empty_database


def test(postgres, tmp_path_factory):
    assert postgres == {url!r}
    assert empty_database(postgres, "of_one_test") == {database!r}
    assert not (tmp_path_factory.getbasetemp() / "ctms").exists(), "an embedded server was started"
"""


def test_a_server_of_ones_own(postgres: str, tmp_path: Path) -> None:
    url = make_url(postgres)
    database = url.set(database="ctms_test_of_one_test")
    texts = {name: one.render_as_string(hide_password=False) for name, one in (("url", url), ("database", database))}
    (tmp_path / "test_it.py").write_text(_OF_A_SERVER.format(**texts))
    own = url.set(drivername="postgres").render_as_string(hide_password=False)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "ctms.testing.fixtures", "--basetemp", tmp_path / "base", tmp_path],
        env={**os.environ, "CTMS_TEST_DB_URL": own},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_an_unused_app_holds_no_connection(apps: Apps, database_url: str) -> None:
    used: set[int] = set()
    for name in ("one", "other", "third"):
        with rolled_back(apps.get([InMemoryEntryPoint(name, Greeter())])):
            wait_until(lambda: used.isdisjoint(client_sessions(database_url)))
            used.add(db.session.scalar(text("SELECT pg_backend_pid()")))

    assert len(used) == 3
