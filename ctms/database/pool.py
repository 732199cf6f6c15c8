"""The connection pool for requests: raw psycopg connections, used through `reading()` and `writing()`.

Round trips and their overhead dominate the latency of a request. A read is one statement on an autocommit connection.
A write is one transaction in psycopg's pipeline mode, which sends its statements together.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import psycopg
from flask import Flask
from psycopg import Transaction, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping, PipelineStatus, TransactionStatus
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from ctms.current import extension
from ctms.database_urls import has_several_hosts
from ctms.settings import Settings

if TYPE_CHECKING:
    Connection = psycopg.Connection[tuple[Any, ...]]
    Cursor = psycopg.Cursor[tuple[Any, ...]]
else:
    Connection = psycopg.Connection
    Cursor = psycopg.Cursor


class ScalarQuery(NamedTuple):
    """A query that returns at most one row of one column, and its values."""

    sql: str
    values: Sequence[Any]


class PoolObserver(Protocol):
    """An observer of the pool, which counts how requests use its connections."""

    def track_wait(self) -> AbstractContextManager[None]:
        """Count a request as waiting, inside the context, because all connections are in use."""

    def count_timeout(self) -> None:
        """Count a request that got no connection in time."""

    def observe_time(self, kind: Literal["read", "write"], seconds: float) -> None:
        """Record how long a request waited for the results of its statements."""


class _NullObserver:
    def track_wait(self) -> AbstractContextManager[None]:
        return nullcontext()

    def count_timeout(self) -> None: ...

    def observe_time(self, kind: Literal["read", "write"], seconds: float) -> None: ...


class ReadOnlyServer(psycopg.OperationalError):
    """The server accepts no writes, because it is a standby or was demoted. A retry may reach the primary."""

    sqlstate = errors.ReadOnlySqlTransaction.sqlstate


class TimedConnection(Connection):
    """A connection that adds up how long it has waited for the server (`waited_seconds`), and knows its age."""

    waited_seconds = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened_at = time.monotonic()

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does, and add the time. Everything sent to and received from the server passes here."""
        started = time.perf_counter()
        try:
            return super().wait(*args, **kwargs)
        finally:
            self.waited_seconds += time.perf_counter() - started

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """Begin a transaction as psycopg does, inside another one a savepoint.

        psycopg asks libpq whether a transaction has begun, and libpq knows that of a pipeline after a synchronisation.
        """
        with ExitStack() as stack:
            if self.info.pipeline_status != PipelineStatus.OFF:
                stack.enter_context(self.pipeline()).sync()
            yield stack.enter_context(super().transaction(savepoint_name, force_rollback))


class Pool(QueuePool):
    """SQLAlchemy's pool with an `observer` of waiting requests and a limit on its connections (`max_size`).

    Connections that were opened before `failed_at` are replaced: one of them has broken, or its server accepts no
    writes any more. After a failover each of the others would cost another request, and up to `tcp_user_timeout`.
    """

    observer: PoolObserver = _NullObserver()
    max_size = 0
    failed_at = 0.0

    def acquire(self) -> PoolProxiedConnection:
        """Check a connection out, and report to the observer if none is free. Raises as `connect` does."""
        try:
            if self.checkedout() < self.max_size:
                return self.connect()
            with self.observer.track_wait():
                return self.connect()
        except PoolTimeout:
            self.observer.count_timeout()
            raise

    def check_age(self, connection: Connection, _entry: ConnectionPoolEntry, _proxy: Any) -> None:
        """Have the pool replace a connection that is older than the last failure."""
        if isinstance(connection, TimedConnection) and connection.opened_at < self.failed_at:
            raise DisconnectionError


CONNECT_TIMEOUT_SECONDS = 5
"""Limit on how long a request waits for PostgreSQL to come up. A restart takes about a second."""


# The kernel of a busy server still acknowledges packets, so slow statements are not affected.
FAILOVER_ARGUMENTS = {
    "connect_timeout": 2,  # for each host; psycopg's minimum
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}
"""The parameters of connections that another server can replace: they detect within seconds that a machine is gone."""


def connect_arguments(settings: Settings) -> dict[str, Any]:
    """Return the parameters of every connection: timeouts keep a stuck query or peer from blocking a worker.

    JIT is off, because compiling the document query takes longer than running it.
    """
    milliseconds = settings.db_statement_timeout * 1000
    return {
        "application_name": "ctms",
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": milliseconds + 10_000,
        "options": (
            f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds // 2}"
            f" -c idle_in_transaction_session_timeout={milliseconds * 3} -c timezone=UTC -c jit=off"
        ),
        **failover_arguments(settings.db_url),
        **preparation_arguments(settings),
    }


def preparation_arguments(settings: Settings) -> dict[str, Any]:
    """Return the parameters of connections that prepare no statements, if the settings say so."""
    return {} if settings.db_prepared_statements else {"prepare_threshold": None}


def failover_arguments(url: str | None) -> dict[str, Any]:
    """Return the parameters that detect within seconds that a machine is gone, if the URL names another one."""
    return {} if url is None or not has_several_hosts(make_url(url)) else FAILOVER_ARGUMENTS


def libpq_url(url: str) -> str:
    """Convert an SQLAlchemy URL to one that libpq accepts."""
    rendered = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    # SQLAlchemy keeps spaces in a password, which libpq rejects, and writes those of parameters as in a form.
    server, mark, parameters = rendered.partition("?")
    return f"{server}{mark}{parameters.replace('+', '%20')}".replace(" ", "%20")


def connect_with_retry(url: str, kind: type[Connection] = psycopg.Connection, **parameters: Any) -> Connection:
    """Connect, and retry for `CONNECT_TIMEOUT_SECONDS` while the server is down, starting, stopping or not promoted.

    Raises `psycopg.OperationalError`, at once when a retry cannot help (wrong password, no such database).
    """
    conninfo = libpq_url(url)
    give_up = time.monotonic() + CONNECT_TIMEOUT_SECONDS
    pause = 0.02
    was_up = False
    while True:
        try:
            return kind.connect(conninfo, **parameters)
        except psycopg.OperationalError as error:
            # Without a `pgconn`, psycopg did not reach the server: the host name did not resolve.
            if error.pgconn is None or time.monotonic() + pause > give_up:
                raise
            if not _is_unavailable(conninfo):
                if was_up:
                    raise
                was_up = True  # the server may have come up since the attempt: try once more
                continue
        was_up = False
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _is_unavailable(conninfo: str) -> bool:
    """Return whether no server listens, or the one that listens is starting, stopping or waiting for its promotion.

    The error of a failed connection has no SQLSTATE, and its text depends on `lc_messages` and on the names in it.
    `PQping` of libpq sees the socket error and the SQLSTATE. Any response but "cannot connect now" (57P03) counts as
    available: neither the password nor TLS need be right.
    """
    given = conninfo_to_dict(conninfo)
    if given.get("target_session_attrs", "any") != "any" and _accepts_connections(conninfo):
        return True  # nothing else is wrong: none of the servers is the primary
    address = {name: given[name] for name in ("host", "hostaddr", "port", "user", "dbname") if name in given}
    ping = make_conninfo("", **address, sslmode="disable", gssencmode="disable", connect_timeout=2)
    return PGconn.ping(ping.encode()) in {Ping.REJECT, Ping.NO_RESPONSE}


def _accepts_connections(conninfo: str) -> bool:
    """Return whether one of the servers accepts connections, the primary or not."""
    try:
        psycopg.connect(conninfo, target_session_attrs="any", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def check_connection(connection: Connection, entry: ConnectionPoolEntry, _proxy: Any) -> None:
    """Have the pool replace an idle connection that the server has closed, without a query.

    An idle connection has nothing to read. Readable data means that it is closed, or about to be closed.
    """
    if connection.closed:
        raise DisconnectionError
    poll = entry.info.get("poll")
    if poll is None:
        poll = entry.info["poll"] = select.poll()
        poll.register(connection.pgconn.socket, select.POLLIN | select.POLLHUP | select.POLLERR)
    if poll.poll(0):
        raise DisconnectionError


def init_pool(app: Flask, settings: Settings, url: Callable[[], str]) -> None:
    """Create the app's pool, without connecting; `url()` returns the server's URL when a connection is needed."""
    parameters = {**connect_arguments(settings), "autocommit": True}
    app.extensions["ctms.pool"] = make_pool(settings, lambda: connect_with_retry(url(), TimedConnection, **parameters))


def make_pool(settings: Settings, connect: Callable[[], Connection]) -> Pool:
    """Return a pool of the connections that a function opens."""
    pool = Pool(
        connect,  # type: ignore[arg-type]
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        timeout=settings.db_pool_timeout,
        recycle=settings.db_pool_recycle,
        use_lifo=True,
        reset_on_return=None,
    )
    pool.max_size = settings.db_pool_size + settings.db_max_overflow
    event.listen(pool, "checkout", check_connection)
    event.listen(pool, "checkout", pool.check_age)
    return pool


def acquire() -> AbstractContextManager[Connection]:
    """Acquire an autocommit connection from the app's pool, and release it at the end.

    Raises `sqlalchemy.exc.TimeoutError` when none becomes free in time, and `psycopg.OperationalError` when connecting
    fails or the server accepts no writes (`ReadOnlyServer`).
    """
    return acquire_from(extension("ctms.pool"))


@contextmanager
def acquire_from(pool: Pool) -> Iterator[Connection]:
    """Acquire a connection from a pool as `acquire` does from the app's."""
    try:
        pooled = pool.acquire()
    except InvalidRequestError as error:  # a stopping server closed the connection and its replacement
        raise psycopg.OperationalError("the server closes connections") from error
    connection = cast(Connection, pooled.driver_connection)
    try:
        yield connection
    except errors.ReadOnlySqlTransaction as error:
        pool.failed_at = time.monotonic()
        raise ReadOnlyServer(error.diag.message_primary or "the server is read-only") from error
    finally:
        if connection.closed:
            pool.failed_at = time.monotonic()
        if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
            pooled.invalidate()
        pooled.close()


@contextmanager
def reading() -> Iterator[Connection]:
    """Acquire a connection on which every statement is a transaction of its own. Raises as `acquire` does."""
    with acquire() as connection, timed(connection, "read"):
        yield connection


@contextmanager
def writing() -> Iterator[Connection]:
    """Acquire a connection for one transaction, which is committed at the end or rolled back by an exception.

    Statements are sent together, and results arrive when one is fetched. Raises as `acquire` does.
    """
    with (
        acquire() as connection,
        timed(connection, "write"),
        _cause_of_abort(),
        connection.pipeline() as pipeline,
        # In a pipeline, `connection.transaction()` waits three times more: for the begin, before and after the commit.
        Transaction(connection),
    ):
        try:
            yield connection
        except BaseException:
            with suppress(psycopg.Error):
                pipeline.sync()  # after an error the server ignores all statements up to here, also a rollback
            raise


@contextmanager
def _cause_of_abort() -> Iterator[None]:
    """Raise the error of a statement whose result nobody fetched, not that of the commit, which the server skipped."""
    try:
        yield
    except errors.PipelineAborted as aborted:
        if isinstance(aborted.__context__, psycopg.Error):
            raise aborted.__context__ from None
        raise


@contextmanager
def timed(connection: Connection, kind: Literal["read", "write"]) -> Iterator[None]:
    """Report to the pool's observer how long the connection waits inside. Connections of tests are not timed."""
    if not isinstance(connection, TimedConnection):
        yield
        return
    before = connection.waited_seconds
    try:
        yield
    finally:
        pool: Pool = extension("ctms.pool")
        pool.observer.observe_time(kind, connection.waited_seconds - before)
