"""The tutorial about plugins is followed, command by command."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.docs.test_examples import HERE
from tests.serving import serve
from tests.testing.environments import Environment

PAGE = DOCS / "tutorials" / "plugin.md"
SERVE = "command: serve"


def test_it_works(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)
    before, after = pages.parts(PAGE, SERVE)

    pages.run(PAGE, variables, tmp_path, part=before)
    with serve(tmp_path, flask=str(environment.commands / "flask")) as running:
        assert running.process.args[1:] == pages.marked(PAGE, SERVE).split()[1:]  # type: ignore[index]
        here = {HERE: running.url, "secret_…": running.client_secret}
        pages.run(PAGE, variables, tmp_path, here, part=after)

    remove = pages.marked(PAGE, "run: remove").split()
    environment.run(*remove, variables=variables, folder=tmp_path)
    assert "hub" not in environment.run("flask", "ctms", "plugins", "list", variables=variables, folder=tmp_path).stdout


def test_what_it_installs_is_there() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    command = pages.marked(PAGE, "command: install")

    assert set(re.findall(r"\[(\w+)\]", command)) == {"testing"} <= set(extras)
