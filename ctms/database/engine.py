"""The database: the server and the tables' base. Commands use `db.session`, requests `ctms.database.pool`."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psycopg
from flask import Flask, has_app_context
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from psycopg import errors
from sqlalchemy import event
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry

from ctms.current import current_app, extension
from ctms.database.embedded import EmbeddedServer, kept_secret
from ctms.database.errors import NO_SCHEMA, describe, driver_error, is_raised_by_function
from ctms.database.pool import (
    Connection,
    check_connection,
    connect_arguments,
    connect_with_retry,
    init_pool,
    libpq_url,
)
from ctms.database.storage import NO_SPACE, data_dir_problem, errno_in
from ctms.errors import OperatorError
from ctms.paths import MIGRATIONS
from ctms.settings import Settings


class Base(DeclarativeBase):
    """What all tables share."""


db = SQLAlchemy(model_class=Base, session_options={"join_transaction_mode": "create_savepoint"})
if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model
migrate = Migrate()

CHECK_TIMEOUT_IN_SECONDS = 2
"""How long a health check waits for the database."""


_NOT_ALLOWED = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)


class EmbeddedUrl:
    """Starts the embedded server when the first connection is made, not when the app is: `--help` needs none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: EmbeddedServer | None = None

    def __call__(self) -> str:
        if self._server is None:
            self._server = EmbeddedServer.acquire(self._settings.data_dir)
            atexit.register(self.release)
        return self._server.url

    def release(self) -> None:
        """Let go of the server, which stops when nobody else uses it."""
        if self._server is not None:
            self._server.release()
            self._server = None


def init_database(app: Flask, settings: Settings) -> None:
    """Make the engine and the pool of the app; nothing is connected yet."""
    embedded_url = EmbeddedUrl(settings) if settings.embedded else None
    app.extensions["ctms.embedded"] = embedded_url
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.db_url or "postgresql+psycopg://"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_recycle": settings.db_pool_recycle,
        "hide_parameters": True,
    }
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    init_pool(app, settings, database_url(app))
    with app.app_context():
        engine = db.engine

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Dialect, _entry: ConnectionPoolEntry, _args: Any, parameters: dict[str, Any]) -> Connection:
        context = parameters.get("context")
        return connect_with_retry(database_url(app)(), context=context, **connect_arguments(settings))

    event.listen(engine, "checkout", check_connection)


def database_url(app: Flask) -> Callable[[], str]:
    """Return what tells the URL of the app's server; for the embedded one, asking starts it."""
    settings: Settings = app.extensions["ctms.settings"]
    return app.extensions["ctms.embedded"] or (lambda: str(settings.db_url))


def secret_key(settings: Settings) -> str:
    """The key that signs tokens: the operator's, or the one kept beside the embedded database.

    Raises `OperatorError` where it cannot be kept.
    """
    return settings.secret_key or _kept(settings, "secret-key")


def erasure_key(settings: Settings) -> str | None:
    """The key of the fingerprints of addresses: the operator's, or the one kept beside the embedded database.

    None on a server of one's own where `CTMS_ERASURE_KEY` is not set. Raises `OperatorError` where it cannot be kept.
    """
    return settings.erasure_key or (_kept(settings, "erasure-key") if settings.embedded else None)


def _kept(settings: Settings, name: str) -> str:
    try:
        return kept_secret(settings.data_dir, name)
    except OSError as error:
        path = Path(error.filename) if error.filename else None
        raise OperatorError(
            data_dir_problem(settings.data_dir, error.errno, path)
            or f"CTMS_DATA_DIR {settings.data_dir} cannot be used: {error.strerror}"
        ) from error


@contextmanager
def quick_connection() -> Iterator[Connection]:
    """Lend a connection of its own to a health check, which must neither wait for the pool nor for a slow server.

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
    """Close the pool and let go of the embedded server, if there is one."""
    app.extensions["ctms.pool"].dispose()
    with app.app_context():
        db.engine.dispose()
    embedded_url = app.extensions["ctms.embedded"]
    if embedded_url is not None:
        embedded_url.release()


def database_problem(error: BaseException | None) -> str | None:
    """Say in one line what an operator has to know about an error of the database; None: it is a fault of ours."""
    if isinstance(error, NO_SCHEMA):
        if is_migrated():
            return f"{describe(error)}, although the database is at the newest revision: see `flask db check`"
        return (
            "the database does not have the tables of this version: run `flask db upgrade` first"
            " (`flask ctms serve` does it for the embedded one)"
        )
    message = "" if isinstance(error, psycopg.Error) and is_raised_by_function(error) else str(error).strip()
    reason = (message.splitlines() or [type(error).__name__])[0]
    if isinstance(error, _NOT_ALLOWED):
        return f"the database does not allow it: {reason}"
    if isinstance(error, errors.DependentObjectsStillExist):
        return f"{reason}: if it is a table of a plugin (`flask db current`), run `flask ctms plugins purge` first"
    return _operational_problem(error, reason) if isinstance(error, psycopg.OperationalError) else None


def _operational_problem(error: psycopg.OperationalError, reason: str) -> str:
    if isinstance(error, errors.DiskFull) or errno_in(reason) in NO_SPACE:
        return f"the database server has no space left: free some on its disk, and try again ({reason})"
    if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "3D", "57P")):
        return f"the database cannot be reached: {reason}{_hint(error)}"
    return f"the database did not do it, try again: {reason}"


def _hint(error: psycopg.OperationalError) -> str:
    # The error of a failed connection has no SQLSTATE; libpq knows whether the server asked for the password.
    if error.pgconn is None or not error.pgconn.used_password:
        return ""
    return " (special characters of the password in CTMS_DB_URL are percent-encoded: @ as %40, % as %25)"


def is_migrated() -> bool:
    """Return whether the database of the current app is at the newest revision; False where nothing can be read."""
    if not has_app_context():
        return False
    try:
        with quick_connection() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[0] == extension("ctms.head")()


@contextmanager
def operator_errors() -> Iterator[None]:
    """Raise `OperatorError` for an error of the database that an operator can put right, in place of it."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        problem = database_problem(driver_error(error))
        if problem is None:
            raise
        raise OperatorError(problem) from error


def check_reachable() -> None:
    """Connect once. Raises `OperatorError`, one line that does not show the URL's password."""
    with operator_errors(), db.engine.connect():
        pass


def app_settings() -> Settings:
    """The settings of the current app."""
    return cast(Settings, extension("ctms.settings"))
