"""The tutorials about plugins are followed, command by command, in a fresh environment from the wheel of CTMS.

Afterwards the plugin's own wheel is installed in another fresh environment.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.docs.test_examples import HERE
from tests.serving import free_port, serve
from tests.testing.environments import Environment

PLUGINS = {"plugin": "hub", "backend": "crm", "deletion-handler": "mailer"}
"""The tutorials that are followed here, and the plugin that each makes."""

ALL_PLUGINS = {**PLUGINS, "table": "notes"}
"""With the one that `test_table_tutorial.py` follows, since its service starts twice."""

INSTALL, SERVE, REMOVE = "command: install", "command: serve", "run: remove"
# The address of another system, as a page writes it for a URL and for Python.
OTHER = ("127.0.0.1:9000", '"127.0.0.1", 9000')


def page_of(tutorial: str) -> Path:
    """Return the page of a tutorial."""
    return DOCS / "tutorials" / f"{tutorial}.md"


@pytest.mark.long
@pytest.mark.timeout(900)  # it runs the tests of a package, twice, beside a service
@pytest.mark.parametrize(("tutorial", "plugin"), PLUGINS.items(), ids=PLUGINS)
def test_it_works(tutorial: str, plugin: str, tmp_path: Path) -> None:
    page = page_of(tutorial)
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)
    before, after = pages.parts(page, SERVE)
    port = str(free_port())
    says = {word: word.replace("9000", port) for word in OTHER}

    pages.run(page, variables, tmp_path, says, part=before)
    with serve(tmp_path, flask=str(environment.commands / "flask")) as running:
        assert running.process.args[1:] == pages.marked(page, SERVE).split()[1:]  # type: ignore[index]
        here = {**says, HERE: running.url, "secret_…": running.client_secret}
        pages.run(page, variables, tmp_path, here, part=after)

    remove = pages.marked(page, REMOVE).split()
    environment.run(*remove, variables=variables, folder=tmp_path)
    listed = environment.run("flask", "ctms", "plugins", "list", variables=variables, folder=tmp_path).stdout
    assert plugin not in [line.split()[0] for line in listed.splitlines() if line]

    installs_from_its_wheel(plugin, tmp_path)


def installs_from_its_wheel(plugin: str, folder: Path) -> None:
    """Build the wheel of the plugin's package and use it where nothing else of the package is."""
    other = Environment(folder / "other")
    variables = other.variables(folder)
    other.run("pip", "wheel", "--quiet", "--no-deps", f"./ctms-{plugin}", variables=variables, folder=folder)
    (wheel,) = folder.glob("*.whl")
    other.run("pip", "install", "--quiet", str(wheel), variables=variables, folder=folder)

    checked = other.run("flask", "ctms", "plugins", "check", plugin, variables=variables, folder=folder).stdout

    assert re.search(r"^state: +on$", checked, re.MULTILINE), checked


def test_the_environment_has_the_wheel_only(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    program = "import ctms, ctms_plugins, wsgi; print(*(m.__file__ for m in (ctms, ctms_plugins, wsgi)), sep='\\n')"

    done = environment.run("python", "-c", program, variables=environment.variables(tmp_path), folder=tmp_path)

    assert [Path(line).is_relative_to(tmp_path) for line in done.stdout.splitlines()] == [True, True, True]


@pytest.mark.parametrize("tutorial", ALL_PLUGINS)
def test_it_begins_as_the_others_do(tutorial: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    command = pages.marked(page_of(tutorial), INSTALL)

    assert command == pages.marked(page_of("plugin"), INSTALL)
    assert set(re.findall(r"\[(\w+)\]", command)) == {"testing"} <= set(extras)


def test_every_tutorial_is_followed() -> None:
    assert {page.stem for page in (DOCS / "tutorials").iterdir()} == {*ALL_PLUGINS, "first-steps", "front-end"}
