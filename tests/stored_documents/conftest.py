"""A database of its own, in which transactions are committed, and connections of several writers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import psycopg
import pytest
from flask import Flask

from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.contacts import document_store, stored_documents
from ctms.database import engine, migrations, pool
from ctms.database.pool import Connection, libpq_url
from ctms.settings import Settings
from ctms.testing.clients import create_client
from ctms.testing.http import ApiClient
from ctms.testing.plugins import bundled
from ctms.testing.servers import empty_database, process_name
from tests.conftest import SECRET_KEY

Connect = Callable[[], Connection]


@pytest.fixture(scope="session")
def store_app(postgres: str, pytestconfig: pytest.Config) -> Iterator[Flask]:
    """The app with a migrated database that only these tests use."""
    url = empty_database(postgres, f"stored_{process_name(pytestconfig)}")
    app = create_app(Settings(db_url=url, secret_key=SECRET_KEY, use_mozlog=False, db_statement_timeout=8), bundled())
    with app.app_context():
        migrations.upgrade()
        create_client("id_stored", roles=["admin"])
    yield app
    engine.release_database(app)


@pytest.fixture
def store(store_app: Flask) -> Iterator[Connection]:
    """An autocommit connection of the app, in its context, to a database without contacts."""
    with store_app.app_context(), pool.acquire() as connection:
        connection.execute("TRUNCATE emails CASCADE")
        connection.execute("TRUNCATE contact_documents, outdated_documents, document_progress")
        connection.execute("UPDATE deletion_feed SET recorded_since = '2020-01-01'")
        yield connection


@pytest.fixture
def store_api(store: Connection, store_app: Flask) -> ApiClient:  # noqa: ARG001  in its context
    """A client of the app."""
    return ApiClient(store_app.test_client(), tokens().issue("id_stored"))


@pytest.fixture
def connect(store: Connection, store_app: Flask) -> Iterator[Connect]:  # noqa: ARG001  before it
    """A factory of connections of writers of other software, which wait for locks only for a moment."""
    with store_app.app_context():
        url = libpq_url(engine.database_url(store_app)())
    with ExitStack() as stack:

        def make() -> Connection:
            connection = stack.enter_context(psycopg.connect(url, autocommit=True, options="-c lock_timeout=200ms"))
            stack.callback(_rollback, connection)
            return connection

        yield make


def _rollback(connection: Connection) -> None:
    with suppress(psycopg.Error):
        connection.execute("ROLLBACK")


def all_ids(connection: Connection) -> list[object]:
    """Return the ids of all contacts."""
    return [row[0] for row in connection.execute("SELECT email_id FROM emails").fetchall()]


def differing(connection: Connection) -> list[object]:
    """Return the contacts whose valid stored document is not the rendered one."""
    return list(stored_documents.compare(connection, all_ids(connection))[1])  # type: ignore[arg-type]


def valid(connection: Connection) -> int:
    """Return the number of valid stored documents."""
    return stored_documents.compare(connection, all_ids(connection))[0]  # type: ignore[arg-type]


def fill_all(connection: Connection) -> int:
    """Store all missing documents; return their number."""
    return sum(result.stored for result in document_store.fill_missing(connection))
