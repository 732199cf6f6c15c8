"""The tutorial about backends is followed, command by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import pages
from tests.docs.pages import DOCS
from tests.docs.test_examples import HERE
from tests.serving import free_port, serve
from tests.testing.environments import Environment

PAGE = DOCS / "tutorials" / "backend.md"
SERVE = "command: serve"
# The address of the CRM, as the page writes it for a URL and for Python.
CRM = ("127.0.0.1:9000", '"127.0.0.1", 9000')


@pytest.mark.timeout(600)  # it runs the tests of a package, twice, beside a service
def test_it_works(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)
    before, after = pages.parts(PAGE, SERVE)
    crm = {word: word.replace("9000", str(port)) for port in [free_port()] for word in CRM}

    pages.run(PAGE, variables, tmp_path, crm, part=before, timeout=250)
    with serve(tmp_path, flask=str(environment.commands / "flask")) as running:
        assert running.process.args[1:] == pages.marked(PAGE, SERVE).split()[1:]  # type: ignore[index]
        here = {**crm, HERE: running.url, "secret_…": running.client_secret}
        pages.run(PAGE, variables, tmp_path, here, part=after, timeout=250)

    remove = pages.marked(PAGE, "run: remove").split()
    environment.run(*remove, variables=variables, folder=tmp_path)
    assert "crm" not in environment.run("flask", "ctms", "plugins", "list", variables=variables, folder=tmp_path).stdout


def test_it_starts_as_the_other_tutorial_does() -> None:
    assert pages.marked(PAGE, "command: install") == pages.marked(DOCS / "tutorials" / "plugin.md", "command: install")
