"""The engine and the base class of models. Commands use `db.session`, requests `ctms.database.pool`."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import psycopg
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry

from ctms.current import current_app
from ctms.database.pool import (
    Connection,
    check_connection,
    connect_arguments,
    connect_with_retry,
    init_pool,
    libpq_url,
)
from ctms.database.replicas import find_replicas, init_replicas
from ctms.settings import Settings


class Base(DeclarativeBase):
    """The base class of all tables' models."""


db = SQLAlchemy(model_class=Base, session_options={"join_transaction_mode": "create_savepoint"})
if TYPE_CHECKING:
    from ctms.database.embedded import EmbeddedServer

    Model = Base
else:
    Model = db.Model


def session_connection() -> Connection:
    """Return psycopg's connection of `db.session`, for statements in its transaction."""
    return cast(Connection, db.session.connection().connection.driver_connection)


CHECK_TIMEOUT_IN_SECONDS = 2
"""Timeout of a health check for the database."""


class EmbeddedUrl:
    """Starts the embedded server with the first connection, not when the app is created: `--help` needs none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: EmbeddedServer | None = None

    def __call__(self) -> str:
        if self._server is None:
            from ctms.database.embedded import EmbeddedServer  # noqa: PLC0415  an external server needs no wheel

            self._server = EmbeddedServer.acquire(self._settings.data_dir)
            atexit.register(self.release)
        return self._server.url

    def release(self) -> None:
        """Release the server, which stops if it has no other user."""
        if self._server is not None:
            self._server.release()
            self._server = None


def init_database(app: Flask, settings: Settings) -> None:
    """Create the engine and the pool of the app, without connecting."""
    embedded_url = EmbeddedUrl(settings) if settings.embedded else None
    app.extensions["ctms.embedded"] = embedded_url
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.db_url or "postgresql+psycopg://"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_recycle": settings.db_pool_recycle,
        "hide_parameters": True,
    }
    db.init_app(app)
    init_pool(app, settings, database_url(app))
    init_replicas(app, settings)
    with app.app_context():
        engine = db.engine

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Dialect, _entry: ConnectionPoolEntry, _args: Any, parameters: dict[str, Any]) -> Connection:
        context = parameters.get("context")
        return connect_with_retry(database_url(app)(), context=context, **connect_arguments(settings))

    event.listen(engine, "checkout", check_connection)


def database_url(app: Flask) -> Callable[[], str]:
    """Return a function that returns the server's URL; for the embedded server it starts the server."""
    settings: Settings = app.extensions["ctms.settings"]
    return app.extensions["ctms.embedded"] or (lambda: str(settings.db_url))


@contextmanager
def quick_connection() -> Iterator[Connection]:
    """Open a separate connection for a health check, which must wait neither for the pool nor for a slow server.

    Raises `psycopg.Error`.
    """
    with psycopg.connect(
        libpq_url(database_url(current_app())()),
        autocommit=True,
        connect_timeout=CHECK_TIMEOUT_IN_SECONDS,
        options=f"-c statement_timeout={CHECK_TIMEOUT_IN_SECONDS * 1000}",
    ) as connection:
        yield connection


def release_database(app: Flask) -> None:
    """Close the pools and release the embedded server, if there is one."""
    app.extensions["ctms.pool"].dispose()
    if (replicas := find_replicas(app)) is not None:
        replicas.pool.dispose()
    with app.app_context():
        db.engine.dispose()
    embedded_url = app.extensions["ctms.embedded"]
    if embedded_url is not None:
        embedded_url.release()
