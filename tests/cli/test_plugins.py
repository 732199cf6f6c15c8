"""`flask ctms plugins list` and `check`. For errors of plugins see `tests/hooks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.settings import Settings
from tests.cli.running import run
from tests.hooks.distributions import Site, site
from tests.hooks.refused import HUB, START

__all__ = ["site"]

ALL_HOOKS = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Settings:
    url: str = setting("URL", "Where it is.", default="https://example.com/")
    key: str = setting("KEY", "Its key.", default="", secret=True)
    limit: int = setting("LIMIT", "How many.", default=3)

class Nothing:
    def push(self, contacts): ...
    def erase(self, identities): ...

blueprint = Blueprint("Shelf", __name__, description="Books")

@blueprint.route("/shelf")
@blueprint.guard("view_contacts")
def shelf():
    \"\"\"Look.\"\"\"

@hookimpl
def ctms_waitlists(settings):
    yield Waitlist(name="hub-*", title="Hubs", check=dict)

@hookimpl
def ctms_backends(settings):
    yield Backend(name="mirror", implementation=Nothing(), description="A copy")

@hookimpl
def ctms_deletion_handlers():
    yield DeletionHandler(name="oblivion", implementation=Nothing())

@hookimpl
def ctms_blueprints():
    yield blueprint

@hookimpl
def ctms_commands():
    yield click.Command("shelve", help="Put it back.")

@hookimpl
def ctms_health_checks(settings):
    yield HealthCheck(name="shelf", check=lambda: None)
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without settings and without a database."""
    for _, setting, _ in Settings.declared():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("CTMS_DATA_DIR", str(tmp_path / "data"))


def listed() -> dict[str, dict[str, Any]]:
    """Return the entries of the list, by the plugins' names."""
    return {row["name"]: row for row in json.loads(run(CliRunner(), "plugins", "list", "--json").stdout)}


def test_the_list(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("acme-shelf", {"shelf": START + ALL_HOOKS}, version="4.5.6")
    monkeypatch.setenv("CTMS_PLUGINS_DISABLED", "vpn")

    rows = listed()

    assert list(rows) == sorted(rows)
    assert rows["shelf"] == {
        "name": "shelf",
        "package": "acme-shelf",
        "version": "4.5.6",
        "hooks": [
            "ctms_backends",
            "ctms_blueprints",
            "ctms_commands",
            "ctms_deletion_handlers",
            "ctms_health_checks",
            "ctms_waitlists",
        ],
        "state": "on",
        "why": None,
    }
    assert (rows["vpn"]["state"], rows["vpn"]["hooks"]) == ("off", [])
    text = run(CliRunner(), "plugins", "list").stdout.splitlines()
    assert text[0].split() == ["name", "package", "version", "hooks", "state", "why"]
    assert len(text) == len(rows) + 1


def test_only_some_are_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_PLUGINS", "relay")

    rows = listed()

    assert {name for name, row in rows.items() if row["state"] == "on"} == {"relay"}
    assert rows["vpn"]["why"] == "CTMS_PLUGINS does not name it"


def test_a_check_shows_what_is_registered_and_the_settings(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("acme-shelf", {"shelf": START + ALL_HOOKS})
    monkeypatch.setenv("CTMS_PLUGIN_SHELF_KEY", "hunter2")
    monkeypatch.setenv("CTMS_PLUGIN_SHELF_LIMIT", "7")

    found = json.loads(run(CliRunner(), "plugins", "check", "shelf", "--json").stdout)
    text = run(CliRunner(), "plugins", "check", "shelf").output

    assert {(one["hook"], one["name"], one["description"]) for one in found["registers"]} == {
        ("ctms_waitlists", "hub-*", "Hubs"),
        ("ctms_backends", "mirror", "A copy"),
        ("ctms_deletion_handlers", "oblivion", None),
        ("ctms_blueprints", "Shelf", "Books"),
        ("ctms_commands", "shelve", "Put it back."),
        ("ctms_health_checks", "shelf", None),
    }
    assert {one["variable"]: (one["value"], one["source"], one["help"]) for one in found["settings"]} == {
        "CTMS_PLUGIN_SHELF_URL": ("https://example.com/", "default", "Where it is."),
        "CTMS_PLUGIN_SHELF_KEY": ("***", "environment", "Its key."),
        "CTMS_PLUGIN_SHELF_LIMIT": (7, "environment", "How many."),
    }
    assert "hunter2" not in text + json.dumps(found)
    for part in ("hub-*", "mirror", "CTMS_PLUGIN_SHELF_KEY", "***"):
        assert part in text
    shown = run(CliRunner(), "settings").output
    assert "CTMS_PLUGIN_SHELF_LIMIT" in shown
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("CTMS_PLUGINS_DISABLED", "shelf", "CTMS_PLUGINS_DISABLED names it"),
        ("CTMS_PLUGINS", "relay", "CTMS_PLUGINS does not name it"),
    ],
)
def test_one_that_is_off_can_be_checked_before_it_is_switched_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, why: str
) -> None:
    site.install("acme-shelf", {"shelf": START + HUB})
    monkeypatch.setenv(variable, value)

    found = json.loads(run(CliRunner(), "plugins", "check", "shelf", "--json").stdout)
    assert (found["state"], found["why"]) == ("off", why)
    assert [one["name"] for one in found["registers"]] == ["hub"]

    site.install("acme-broken", {"broken": "import absent"})
    if variable == "CTMS_PLUGINS_DISABLED":
        monkeypatch.setenv(variable, "shelf,broken")
    assert "No module named 'absent'" in run(CliRunner(), "plugins", "check", "broken", status=1).stderr
    run(CliRunner(), "settings")  # a disabled plugin is harmless


def test_the_name_of_a_plugin_may_be_spelt_as_its_package(site: Site) -> None:
    site.install("acme-lang-tool", {"lang_tool": START + HUB})

    for name in ("lang-tool", "lang_tool"):
        assert json.loads(run(CliRunner(), "plugins", "check", name, "--json").stdout)["name"] == "lang_tool"


def test_no_such_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run(CliRunner(), "plugins", "check", "nobody", status=4)

    assert refused.stderr.startswith("Error: there is no plugin nobody; the plugins are ")
    assert "relay" in refused.stderr
    monkeypatch.setenv("CTMS_PLUGINS", "relay")
    run(CliRunner(), "plugins", "check", "nobody", status=4)


def test_a_setting_of_the_service_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "70000")

    for command in (["list"], ["check", "relay"]):
        assert run(CliRunner(), "plugins", *command, status=1).stderr.startswith("Error: PORT ")


def test_the_help_is_there_while_a_plugin_is_broken(site: Site) -> None:
    site.install("acme-broken", {"broken": "import absent"})

    helped = run(CliRunner(), "--help")

    assert "serve" in helped.stdout
    assert helped.stderr.startswith("The commands of plugins are not available: plugin 'broken' of acme-broken 1.2.3: ")
