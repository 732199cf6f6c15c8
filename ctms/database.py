"""The database: one engine per app, and the two ways in.

Commands and migrations use the session of Flask-SQLAlchemy (`db.session`). Requests use `unit_of_work`: a psycopg
connection in pipeline mode, since round trips decide how fast a request is. Both take connections from one pool.
"""

from __future__ import annotations

import atexit
import logging
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import flask_migrate
import psycopg
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask, current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry

from ctms.embedded import EmbeddedServer, kept_secret
from ctms.errors import OperatorError
from ctms.paths import MIGRATIONS
from ctms.settings import Settings

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[tuple[Any, ...]]
    Connection = psycopg.Connection[tuple[Any, ...]]
else:
    Connection = psycopg.Connection
    Cursor = psycopg.Cursor

logger = logging.getLogger(__name__)


class Base(DeclarativeBase):
    """What all tables share."""


db = SQLAlchemy(model_class=Base, session_options={"join_transaction_mode": "create_savepoint"})
if TYPE_CHECKING:
    Model = Base
else:
    Model = db.Model
migrate = Migrate()

CONNECT_TIMEOUT_IN_SECONDS = 5
"""A restart of PostgreSQL takes about a second: who needs a connection waits for it this long at the most."""

CHECK_TIMEOUT_IN_SECONDS = 2
"""How long a health check waits for the database."""


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
    """Make the engine of the app; nothing is connected yet."""
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.db_url or "postgresql+psycopg://"
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": settings.db_pool_size,
        "max_overflow": settings.db_max_overflow,
        "pool_timeout": settings.db_pool_timeout,
        "pool_recycle": settings.db_pool_recycle,
        "pool_use_lifo": True,
        "connect_args": connect_arguments(settings),
        "hide_parameters": True,
    }
    db.init_app(app)
    migrate.init_app(app, db, directory=str(MIGRATIONS))
    embedded_url = EmbeddedUrl(settings) if settings.embedded else None
    app.extensions["ctms.embedded"] = embedded_url
    with app.app_context():
        engine = db.engine

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _entry: ConnectionPoolEntry, _args: Any, parameters: dict[str, Any]) -> Connection:
        if embedded_url is not None:
            parameters.update(dialect.create_connect_args(make_url(embedded_url()))[1])
        return connect_patiently(parameters)

    event.listen(engine, "checkout", refuse_dead_connection)


def secret_key(settings: Settings) -> str:
    """The key that signs tokens: the operator's, or the one kept beside the embedded database."""
    return settings.secret_key or kept_secret(settings.data_dir, "secret-key")


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """What every connection is opened with: time-outs, so that a stuck query or peer never hangs a worker.

    JIT is off: it takes longer to compile the document query than to run it.
    """
    milliseconds = settings.db_statement_timeout * 1000
    return {
        "application_name": "ctms",
        "connect_timeout": CONNECT_TIMEOUT_IN_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds + 10_000,
        "options": (
            f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds // 2}"
            f" -c idle_in_transaction_session_timeout={milliseconds * 3} -c timezone=UTC -c jit=off"
        ),
    }


def connect_patiently(parameters: dict[str, Any]) -> Connection:
    """Connect, and try again while the server is away or starting, for `CONNECT_TIMEOUT_IN_SECONDS`.

    Raises `psycopg.OperationalError`; at once where waiting cannot help (wrong password, no such database).
    """
    give_up = time.monotonic() + CONNECT_TIMEOUT_IN_SECONDS
    pause = 0.02
    while True:
        try:
            return cast(Connection, psycopg.connect(**parameters))
        except psycopg.OperationalError as error:
            if not _is_away(error) or time.monotonic() + pause > give_up:
                raise
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _is_away(error: psycopg.OperationalError) -> bool:
    """True when nobody listens, or who listens is starting or stopping; libpq gives no code for it."""
    text = str(error)
    return any(
        sign in text
        for sign in (
            "Connection refused",
            "No such file or directory",
            "is starting up",
            "is shutting down",
            "recovery",
            "server closed the connection unexpectedly",
        )
    )


def refuse_dead_connection(connection: Connection, _entry: ConnectionPoolEntry, _proxy: Any) -> None:
    """Tell the pool to replace an idle connection whose server has gone, without asking the server.

    An idle connection has nothing to read: if there is something, it is the end, or the news that it is near.
    """
    if connection.closed:
        raise DisconnectionError
    poll = select.poll()
    poll.register(connection.pgconn.socket, select.POLLIN | select.POLLHUP | select.POLLERR)
    if poll.poll(0):
        raise DisconnectionError


@contextmanager
def unit_of_work(*, writes: bool) -> Iterator[Connection]:
    """Lend a connection in pipeline mode.

    What is executed on it is sent together and answered when something is fetched. When it `writes`, all of it
    is one transaction: committed at the end, rolled back by an exception.
    """
    pooled = engine().raw_connection()
    try:
        connection = cast(Connection, pooled.driver_connection)
        # In a test it is inside the test's transaction already: then a savepoint takes the transaction's place.
        nested = connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE
        if not nested:
            connection.autocommit = True
        try:
            with connection.pipeline(), connection.transaction() if writes or nested else nullcontext():
                yield connection
        except psycopg.OperationalError:
            if connection.broken:
                pooled.invalidate()
            raise
        finally:
            if not nested and not connection.closed:
                connection.rollback()
                connection.autocommit = False
    finally:
        pooled.close()


@contextmanager
def quick_connection() -> Iterator[Connection]:
    """Lend a connection of its own to a health check, which must neither wait for the pool nor for a slow server.

    Raises `psycopg.Error`.
    """
    parameters = db.engine.dialect.create_connect_args(db.engine.url)[1]
    embedded_url = current_app.extensions["ctms.embedded"]
    if embedded_url is not None:
        parameters = db.engine.dialect.create_connect_args(make_url(embedded_url()))[1]
    with psycopg.connect(
        **parameters,
        autocommit=True,
        connect_timeout=CHECK_TIMEOUT_IN_SECONDS,
        options=f"-c statement_timeout={CHECK_TIMEOUT_IN_SECONDS * 1000}",
    ) as connection:
        yield connection


def engine() -> Engine:
    """The engine of the current app."""
    return db.engine


def release_database(app: Flask) -> None:
    """Close the pool and let go of the embedded server, if there is one."""
    with app.app_context():
        db.engine.dispose()
    embedded_url = app.extensions["ctms.embedded"]
    if embedded_url is not None:
        embedded_url.release()


def check_reachable() -> None:
    """Connect once. Raises `OperatorError`, one line that does not show the URL's password."""
    try:
        with db.engine.connect():
            pass
    except Exception as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise OperatorError(f"the database cannot be reached: {reason}") from error


def check_migrated() -> None:
    """Raise `OperatorError` unless the schema is at the newest revision."""
    with db.engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current != head():
        raise OperatorError(
            f"the database is at revision {current or 'none'}, not {head()}: run `flask db upgrade` first"
        )


@cache
def head() -> str:
    """The newest migration's revision."""
    found = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert found is not None  # noqa: S101  a test holds it
    return found


def upgrade() -> None:
    """Bring the schema to the newest revision."""
    flask_migrate.upgrade(directory=str(MIGRATIONS))


def app_settings() -> Settings:
    """The settings of the current app."""
    return cast(Settings, current_app.extensions["ctms.settings"])
