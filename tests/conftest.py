"""What every test may use: an app on a database of its own, a client with a token, a served instance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ctms import database, pool
from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.embedded import EmbeddedServer
from ctms.settings import Settings
from tests.clients.factories import create_client
from tests.http import ApiClient
from tests.serving import Served, serve

SECRET_KEY = "a key for tests only, of thirty-two bytes or more"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """One folder for all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "ctms"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def postgres(shared_folder: Path) -> Iterator[str]:
    """The URL of a PostgreSQL server for all test processes of this run."""
    server = EmbeddedServer.acquire(shared_folder)
    yield server.url
    server.release()


@pytest.fixture(scope="session")
def database_url(postgres: str, worker_id: str) -> str:
    """The URL of an empty database for this test process."""
    return empty_database(postgres, f"test_{worker_id}")


def empty_database(postgres: str, name: str) -> str:
    """Make an empty database and return its URL."""
    with psycopg.connect(
        make_url(postgres).set(drivername="postgresql").render_as_string(), autocommit=True
    ) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def settings(database_url: str) -> Settings:
    """Settings for the app under test."""
    return Settings(db_url=database_url, secret_key=SECRET_KEY, use_mozlog=False)


@pytest.fixture(scope="session")
def migrated_app(settings: Settings) -> Iterator[Flask]:
    """The app, on a database that the migrations made."""
    app = create_app(settings)
    with app.app_context():
        database.upgrade()
    yield app
    database.release_database(app)


@pytest.fixture
def app(migrated_app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """The app inside a transaction that is rolled back: requests, commands and sessions are savepoints of it."""
    with migrated_app.app_context(), database.db.engine.connect() as connection:
        connection.execute(text("SELECT 1"))  # psycopg begins the transaction now
        one = cast(pool.Connection, connection.connection.driver_connection)

        @contextmanager
        def savepoint() -> Iterator[object]:
            with one.transaction():
                yield one

        monkeypatch.setattr(pool, "lend", savepoint)
        monkeypatch.setitem(database.db.engines, None, connection)
        try:
            yield migrated_app
        finally:
            database.db.session.remove()
            connection.rollback()


@pytest.fixture
def client_id(app: Flask) -> str:  # noqa: ARG001  inside the app's transaction
    """The id of an API client with the role `admin`."""
    return create_client("id_test", roles=["admin"])


@pytest.fixture
def api(app: Flask, client_id: str) -> ApiClient:
    """Calls the app with the token of `client_id`."""
    return ApiClient(app.test_client(), tokens().issue(client_id))


@pytest.fixture
def anonymous(app: Flask) -> ApiClient:
    """Calls the app without a token."""
    return ApiClient(app.test_client(), None)


@pytest.fixture
def cli(app: Flask) -> FlaskCliRunner:
    """Runs `flask …` commands inside the app."""
    return app.test_cli_runner()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service as a user starts it: `flask ctms serve` on an embedded database of its own."""
    with serve(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """The name of this test process, also without pytest-xdist."""
    workerinput = getattr(request.config, "workerinput", {"workerid": "master"})
    return str(workerinput["workerid"])
