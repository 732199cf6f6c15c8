"""The fixtures: put `pytest_plugins = ["ctms.testing.fixtures"]` into the top-level `conftest.py` of your tests.

They are not enabled automatically, because most test suites in an environment with CTMS do not test plugins, and names
such as `app` and `settings` are common. Any of them can be overridden by a fixture of the same name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.engine import make_url

from ctms.clients.tokens import tokens
from ctms.settings import Settings
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client, create_role
from ctms.testing.commands import CommandRunner
from ctms.testing.contacts import contact_body
from ctms.testing.http import ApiClient
from ctms.testing.plugins import bundled, points_of, under_test
from ctms.testing.servers import SERVER_VARIABLE, empty_database, folder_of_run, process_name, without_durability

SECRET_KEY = "a key for tests only, of thirty-two bytes or more"  # noqa: S105  signs nothing else


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the SQLAlchemy URL of a PostgreSQL server for all processes of this test run.

    It is the server of `CTMS_TEST_DB_URL`, or an embedded one.
    """
    if url := os.environ.get(SERVER_VARIABLE):
        yield make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        return
    from ctms.database.embedded import EmbeddedServer  # noqa: PLC0415  an external server needs no wheel

    with EmbeddedServer.acquire(folder_of_run(pytestconfig, tmp_path_factory)) as server:
        without_durability(server.url)
        yield server.url


@pytest.fixture(scope="session")
def database_url(postgres: str, pytestconfig: pytest.Config) -> str:
    """Return the SQLAlchemy URL of this test process' database, which the first app migrates."""
    return empty_database(postgres, f"test_{process_name(pytestconfig)}")


@pytest.fixture(scope="session")
def settings(database_url: str) -> Settings:
    """Return the settings of the app, except those of plugins."""
    return Settings(db_url=database_url, secret_key=SECRET_KEY, use_mozlog=False)


@pytest.fixture(scope="session")
def apps(settings: Settings) -> Iterator[Apps]:
    """Return the apps of this test process."""
    made = Apps(settings)
    yield made
    made.release()


@pytest.fixture
def ctms_plugins(pytestconfig: pytest.Config) -> Iterable[object]:
    """Return the plugins of the app: by default the bundled ones and those that this project declares.

    A project declares its plugins in `pyproject.toml`, `[project.entry-points.ctms]`. Override the fixture to choose
    others: a list of names of installed plugins, entry points, modules and objects.
    """
    points = {(point.name, point.value): point for point in (*bundled(), *under_test(pytestconfig.rootpath))}
    return list(points.values())


@pytest.fixture
def ctms_environment() -> Mapping[str, str]:
    """Return the variables `CTMS_PLUGIN_…` for the plugins' settings: none. Override it to set some."""
    return {}


@pytest.fixture
def app(apps: Apps, ctms_plugins: Iterable[object], ctms_environment: Mapping[str, str]) -> Iterator[Flask]:
    """Return the app with `ctms_plugins`, inside a transaction that is rolled back after the test."""
    with rolled_back(apps.get(points_of(ctms_plugins), ctms_environment)) as running:
        yield running


@pytest.fixture
def client_id(app: Flask) -> str:  # noqa: ARG001  inside the app's transaction
    """Return the id of an API client with the role `admin`."""
    return create_client("id_test", roles=["admin"])


@pytest.fixture
def api(app: Flask, client_id: str) -> ApiClient:
    """Return a client that calls the app with the token of `client_id`."""
    return ApiClient(app.test_client(), tokens().issue(client_id))


@pytest.fixture
def anonymous(app: Flask) -> ApiClient:
    """Return a client that calls the app without a token."""
    return ApiClient(app.test_client(), None)


@pytest.fixture
def make_client(app: Flask) -> Callable[..., ApiClient]:
    """Return a factory of API clients: `make_client("view_contacts")` calls the app with only this permission."""
    numbers = count(1)

    def make(*permissions: str) -> ApiClient:
        number = next(numbers)
        role = create_role(f"role_{number}", permissions)
        return ApiClient(app.test_client(), tokens().issue(create_client(f"id_test_{number}", roles=[role])))

    return make


@pytest.fixture
def make_contact(api: ApiClient) -> Callable[..., dict[str, Any]]:
    """Return a factory: `make_contact(**members)` posts `contact_body(**members)` and returns the contact."""

    def make(**members: Any) -> dict[str, Any]:
        answer = api.post("/ctms", contact_body(**members))
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json
        return document

    return make


@pytest.fixture
def cli(app: Flask) -> CommandRunner:
    """Return a runner of commands: `cli.ctms("clients", "list")` runs `flask ctms clients list` within the app."""
    return CommandRunner(app)
