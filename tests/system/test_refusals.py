"""A refused start is one line that names package, version, hook and hint."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.settings import Settings
from tests.cli.running import run
from tests.docs.pages import DOCS
from tests.hooks.distributions import Site, write_project
from tests.hooks.refused import CASES as OTHER_CASES
from tests.hooks.refused import HUB, ROUTE, START, Case
from tests.hooks.refused_tables import TABLE_CASES
from tests.serving import environment_for, run_flask

HOW_TO = DOCS / "how-to" / "plugins.md"


CASES = (*OTHER_CASES, *TABLE_CASES)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start without settings and without a database."""
    for _, setting, _ in Settings.declared():
        monkeypatch.delenv(setting.variable, raising=False)
    monkeypatch.setenv("CTMS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CTMS_USE_MOZLOG", "false")


def install(site: Site, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the case's packages and set its variables."""
    for name, source in case.sources.items():
        site.install(f"ctms-{name}", {name: source})
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value)


def titles(case: Case) -> list[str]:
    """The plugins of the case as messages call them."""
    if case.says[0].startswith("CTMS_PLUGINS"):
        return []
    return [f"plugin {name!r} of ctms-{name} 1.2.3" for name in case.sources]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_service_does_not_start(case: Case, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, case, monkeypatch)

    for command in ("serve",) if case.needs_app else ("serve", "settings"):
        message = run(CliRunner(), command, status=1).stderr
        for part in (*case.says, *titles(case)):
            assert part in message
        found = re.search(r", in (/\S+\.py), line (\d+)", message)
        assert (found is not None) == case.has_place, message
        if found is not None:
            assert Path(found[1]).parent == site.folder
            assert int(found[2]) <= len(Path(found[1]).read_text().splitlines())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_list_has_it_all_the_same(case: Case, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, case, monkeypatch)
    site.install("ctms-sound", {"sound": START + HUB.replace('"hub"', '"sound"')})

    listed = run(CliRunner(), "plugins", "list", "--json")

    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    if not titles(case):
        assert case.says[0] in listed.stderr
        assert rows["acme"]["state"] == "on"
        return
    broken = {name for name, row in rows.items() if row["state"] == "broken"}
    assert broken == set(case.sources)
    for name in broken:
        assert (rows[name]["package"], rows[name]["version"]) == (f"ctms-{name}", "1.2.3")
        assert case.says[0] in rows[name]["why"]
    refused = run(CliRunner(), "plugins", "check", "acme" if "acme" in broken else broken.pop(), status=1)
    assert all(part in refused.stderr for part in (*case.says, *titles(case)))
    assert rows["sound"]["state"] == rows["relay"]["state"] == "on"


def test_a_sound_plugin_is_checked_beside_broken_ones(site: Site) -> None:
    for name, source in {
        "acme": "import absent",
        "bolt": START + ROUTE.format(name="Hub", path="/hub", guard=""),
    }.items():
        site.install(f"ctms-{name}", {name: source})
    site.install("ctms-sound", {"sound": START + HUB})

    checked = json.loads(run(CliRunner(), "plugins", "check", "sound", "--json").stdout)

    assert checked["registers"] == [{"hook": "ctms_waitlists", "name": "hub", "description": "Hub"}]


@pytest.mark.parametrize("case", [case for case in CASES if titles(case)], ids=lambda case: case.name)
def test_switched_off_it_harms_nothing(case: Case, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, case, monkeypatch)
    monkeypatch.setenv("CTMS_PLUGINS_DISABLED", ",".join(case.sources))

    run(CliRunner(), "settings")
    rows = json.loads(run(CliRunner(), "plugins", "list", "--json").stdout)

    assert {row["name"] for row in rows if row["state"] == "off"} == set(case.sources)
    assert not [row for row in rows if row["state"] == "broken"]


def test_two_packages_with_plugins_of_one_name(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("ctms-acme", {"acme": START + HUB})
    site.install("ctms-bolt", {"bolt": START + HUB}, acme="bolt")

    message = run(CliRunner(), "serve", status=1).stderr
    listed = json.loads(run(CliRunner(), "plugins", "list", "--json").stdout)

    assert "plugin 'acme' comes with ctms-acme 1.2.3 and ctms-bolt 1.2.3" in message
    assert "uninstall one of them, rename an entry point, or set CTMS_PLUGINS_DISABLED=acme" in message
    assert [(row["package"], row["state"]) for row in listed if row["name"] == "acme"] == [
        ("ctms-acme", "broken"),
        ("ctms-bolt", "broken"),
    ]
    monkeypatch.setenv("CTMS_PLUGINS_DISABLED", "acme")
    run(CliRunner(), "settings")


@pytest.mark.parametrize("name", ["Acme", "ac-me", "1acme", "acmé"])
def test_a_plugin_that_no_variable_can_name(site: Site, name: str) -> None:
    site.install("ctms-acme", {"acme": START + HUB}, **{name: "acme"})

    message = run(CliRunner(), "settings", status=1).stderr

    assert f"plugin {name!r} of ctms-acme 1.2.3: a plugin's name consists of lower-case letters" in message
    assert "rename the entry point in the group 'ctms'" in message


def test_an_entry_point_that_leads_nowhere(site: Site) -> None:
    site.install("ctms-acme", {"acme": START + HUB}, acme="acme:nothing")

    assert "cannot be imported (AttributeError: " in run(CliRunner(), "settings", status=1).stderr


def test_an_object_that_pluggy_cannot_keep(site: Site) -> None:
    source = f"import dataclasses\n\n@dataclasses.dataclass\nclass Acme:{indent(HUB, '    ')}".replace("()", "(self)")
    site.install("ctms-acme", {"acme": START + source + "\nplugin = Acme()\n"}, acme="acme:plugin")

    message = run(CliRunner(), "settings", status=1).stderr

    assert "plugin 'acme' of ctms-acme 1.2.3: its object cannot be hashed: if it is a dataclass" in message
    assert "`its object cannot be hashed`" in HOW_TO.read_text()


def test_two_plugins_that_are_one_module(site: Site) -> None:
    site.install("ctms-acme", {"acme": START + HUB}, acme="acme", again="acme")

    message = run(CliRunner(), "settings", status=1).stderr

    assert "plugin 'again' of ctms-acme 1.2.3: another plugin has the same module" in message


def test_a_secret_is_not_repeated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
import dataclasses

@dataclasses.dataclass
class Settings:
    key: str = setting("KEY", "The key.", default="", secret=True)

@hookimpl
def ctms_waitlists(settings):
    raise ValueError(f"the key {settings.key} is not good")
"""
    site.install("ctms-acme", {"acme": START + source})
    monkeypatch.setenv("CTMS_PLUGIN_ACME_KEY", "hunter2")

    for command in (["settings"], ["plugins", "check", "acme"]):
        refused = run(CliRunner(), *command, status=1)
        assert "ValueError: the key *** is not good" in refused.stderr
        assert "hunter2" not in refused.output


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_how_to_explains_it(case: Case) -> None:
    rows = [line for line in HOW_TO.read_text().splitlines() if line.startswith("| `")]
    shown = [line.split("`")[1].split("…") for line in rows]

    assert any(all(part in case.says[0] for part in parts) for parts in shown), case.says[0]


@pytest.fixture
def with_pip(tmp_path: Path) -> Any:
    """Installs a package as an operator does, into a folder of its own; returns an environment in which it is there."""

    def install(source: str) -> dict[str, str]:
        write_project(tmp_path / "project", "ctms-acme", "2.0", {"acme": source})
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"),
                *("--no-deps", "--no-build-isolation", "--target", tmp_path / "site", tmp_path / "project"),
            ],
            check=True,
            timeout=300,
        )
        return environment_for(tmp_path / "data", PYTHONPATH=str(tmp_path / "site"))

    return install


def test_a_process_with_a_package_that_pip_installed(with_pip: Any, tmp_path: Path) -> None:
    environment = with_pip(START + HUB.replace("lists", "list"))

    for command in ("serve", "settings"):
        refused = run_flask("ctms", command, environment=environment, cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr == (
            "Error: plugin 'acme' of ctms-acme 2.0: there is no hook ctms_waitlist,"
            f" in {tmp_path}/site/acme.py, line 4: did you mean ctms_waitlists?\n"
        )
    listed = run_flask("ctms", "plugins", "list", environment=environment, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "broken" in next(line for line in listed.stdout.splitlines() if line.startswith("acme"))
    assert run_flask("ctms", "plugins", "check", "relay", environment=environment, cwd=tmp_path).returncode == 0
    assert run_flask("ctms", "plugins", "check", "nobody", environment=environment, cwd=tmp_path).returncode == 4
    upgrade = run_flask("--app", "wsgi", "db", "current", environment=environment, cwd=tmp_path)
    assert upgrade.returncode == 1
    assert "did you mean ctms_waitlists?" in upgrade.stderr.splitlines()[-1]
