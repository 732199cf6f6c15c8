"""The tutorial about a plugin with a table is followed, command by command."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.docs import pages
from tests.docs.pages import DOCS
from tests.docs.test_examples import HERE
from tests.docs.test_tutorials import installs_from_its_wheel
from tests.serving import serve
from tests.testing.environments import Environment
from tests.waiting import wait_until

PAGE = DOCS / "tutorials" / "table.md"
SERVE = "command: serve"


@pytest.mark.long
@pytest.mark.timeout(900)  # it runs the tests of a package, twice, beside a service
def test_it_works(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)
    flask = str(environment.commands / "flask")
    before, after = pages.parts(PAGE, SERVE)

    pages.run(PAGE, variables, tmp_path, part=before)
    with serve(tmp_path, flask=flask) as running:
        assert running.process.args[1:] == pages.marked(PAGE, SERVE).split()[1:]  # type: ignore[index]
        secret = running.client_secret
        pages.run(PAGE, variables, tmp_path, {HERE: running.url, "secret_…": secret}, part=after)
        assert "done" in running.flask("ctms", "erasures", "list").stdout

    environment.run(*pages.marked(PAGE, "run: remove").split(), variables=variables, folder=tmp_path)
    with serve(tmp_path, flask=flask) as running:
        running.client_secret = secret
        assert running.session().get(f"{running.url}/notes/1", timeout=60).status_code == 404
        wait_until(
            lambda: requests.get(f"{running.url}/__heartbeat__", timeout=60).json()["checks"]["migrations"] == "ok"
        )
        purge = [pages.Block("run", "bash", pages.marked(PAGE, "run: purge"))]
        printed = [pages.Block("prints", "text", pages.marked(PAGE, "prints: purge"))]
        pages.run(PAGE, variables, tmp_path, part=[*purge, *printed])

    installs_from_its_wheel("notes", tmp_path)
