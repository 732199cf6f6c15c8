"""What these tests share: a served instance, the clients that the how-to's commands generate, and what uses them.

The programs come with the dependency group `generated-clients`, Java and Node.js included, and from `packages.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url
from tests.docs import pages
from tests.serving import Served, serve

HERE = Path(__file__).parent
TYPESCRIPT = HERE / "typescript"
HOW_TO = pages.DOCS / "how-to" / "generate-a-client.md"
URL_OF_THE_DOCS = "http://127.0.0.1:8000"

GENERATORS = ("openapi-generator", "openapi-python-client", "openapi-typescript")
TIMEOUT_IN_SECONDS = 600
"""So long may a test take: many times what it takes, on a machine that is busy and slow."""

# Waitlists whose names and titles differ as little as class names of generators can stand.
LISTS = {
    "relay any": {"title": "Contact", "schema": {"title": "Contact", "type": "object"}},
    "relay_any": {
        "title": "Contact",
        "schema": {
            "title": "Contact",
            "properties": {
                "workspace": {"title": "Contact", "type": "object", "properties": {"title": {"type": "string"}}},
                "self": {"$ref": "#"},
            },
            "additionalProperties": False,
        },
    },
    "Relay_any": {"title": "Relay", "schema": {"required": ["geo"]}},
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests here their time; the others keep that of all."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(TIMEOUT_IN_SECONDS))


def search_path() -> str:
    """Return the `PATH` of a reader who has activated the virtual environment."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def run(*command: str, cwd: Path, **variables: str) -> str:
    """Run a program to its good end; returns what it printed, warnings included."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": search_path(), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_IN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served instance that declares `LISTS`."""
    folder = tmp_path_factory.mktemp("service")
    lists = folder / "lists.json"
    lists.write_text(json.dumps(LISTS))
    with serve(folder, CTMS_PLUGIN_DECLARED_PATH=str(lists)) as running:
        yield running


@pytest.fixture(scope="session")
def api(service: Served) -> Iterator[requests.Session]:
    """Calls the service without any generated client."""
    with service.session() as session:
        yield session


@pytest.fixture(scope="session")
def workspace(service: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the document, as the how-to gets it, and with the packages of npm."""
    folder = tmp_path_factory.mktemp("clients")
    for name in ("driver.ts", "tsconfig.json", "package.json"):
        shutil.copy(TYPESCRIPT / name, folder)
    (folder / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    run("bash", "-euc", documented("document", service), cwd=folder)
    return folder


@dataclass(frozen=True)
class Generated:
    """A client that was generated: by what, where it is, and what the generator printed."""

    generator: str
    workspace: Path
    printed: str

    @property
    def folder(self) -> Path:
        """What has to be on the import path to use it."""
        return self.workspace if self.generator == "openapi-typescript" else self.workspace / self.generator

    @property
    def driver(self) -> Path:
        """The file that drives it."""
        if self.generator == "openapi-typescript":
            return self.workspace / "driver.ts"
        return HERE / "drivers" / f"{self.generator.replace('-', '_')}.py"

    @property
    def example(self) -> Path:
        """The file with the how-to's example."""
        return self.workspace / ("example.ts" if self.generator == "openapi-typescript" else f"{self.generator}.py")

    def command(self, source: Path) -> list[str]:
        """Return how one of these two is run."""
        if self.generator == "openapi-typescript":
            return ["node", str(self.workspace / "built" / source.with_suffix(".js").name)]
        return [sys.executable, str(source)]


@pytest.fixture(scope="session", params=GENERATORS)
def generated(request: pytest.FixtureRequest, service: Served, workspace: Path) -> Generated:
    """The client that the how-to's command makes."""
    name: str = request.param
    return Generated(name, workspace, run("bash", "-euc", documented(name, service), cwd=workspace))


@pytest.fixture(scope="session")
def checked(generated: Generated, service: Served) -> Generated:
    """The client, its types and those of what uses it checked, as strictly as the generated code allows."""
    generated.example.write_text(documented(generated.generator, service, "file"))
    check_types(generated)
    return generated


def check_types(generated: Generated) -> None:
    """Check the types of the client, its driver and its example; those of TypeScript are compiled, too."""
    if generated.generator == "openapi-typescript":
        run("npx", "tsc", "--project", ".", cwd=generated.workspace)
        return
    mypy = (sys.executable, "-m", "mypy", "--cache-dir", str(generated.workspace / ".mypy_cache"))
    strict = (*mypy, "--config-file", "", "--strict", "--follow-imports", "silent")
    here: dict[str, Any] = {"cwd": generated.folder, "MYPYPATH": str(generated.folder)}
    if generated.generator == "openapi-generator":  # it comes with settings of mypy that it passes, short of strict
        run(*mypy, "--config-file", "pyproject.toml", "-p", "ctms_client", **here)
    else:  # `client.py` is the same whatever the document is, and has errors of its own
        run(*strict, "-p", "ctms_client.api", "-p", "ctms_client.models", **here)
    run(*strict, str(generated.driver), str(generated.example), **here)


def documented(name: str, service: Served, what: str = "run") -> str:
    """Return what the how-to has a reader run, or write into a `file`, for the service."""
    text = pages.marked(HOW_TO, f"{what}: {name}").replace(URL_OF_THE_DOCS, service.url)
    return text.replace("secret_…", service.client_secret)


Step = Callable[..., Any]


@contextmanager
def driven(command: list[str], url: str, variables: Mapping[str, str], errors: Path) -> Iterator[Step]:
    """Start a driver; gives what has it do a step and returns what came."""
    with (
        errors.open("w") as file,
        subprocess.Popen(
            [*command, url],
            env={**os.environ, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def step(name: str, **arguments: str) -> Any:
            stdin.write(json.dumps([name, arguments]) + "\n")
            stdin.flush()
            line = stdout.readline()
            assert line, errors.read_text()
            answer = json.loads(line)
            assert "failed" not in answer, answer["failed"]
            return answer["came"]

        try:
            yield step
        finally:
            stdin.close()


@pytest.fixture(scope="session")
def client(service: Served, checked: Generated) -> Iterator[Step]:
    """A process that uses the generated client, with a token that it asked for."""
    errors = checked.workspace / f"{checked.generator}.txt"
    with driven(checked.command(checked.driver), service.url, {"PYTHONPATH": str(checked.folder)}, errors) as step:
        assert step("log_in", client_id=service.client_id, client_secret=service.client_secret) == "bearer"
        yield step


@pytest.fixture
def database(service: Served) -> Iterator[psycopg.Connection]:
    """A connection to the service's database."""
    server = EmbeddedServer.acquire(service.folder)
    try:
        with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
            yield connection
    finally:
        server.release()
