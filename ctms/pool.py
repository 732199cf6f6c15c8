"""The connections that requests use: psycopg's own, in a pool of their own, `reading()` or `writing()`.

Round trips and their overhead decide how fast a request is. A read is one statement on an autocommit connection;
a write is one transaction in psycopg's pipeline mode, which sends its statements together.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import psycopg
from flask import Flask
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import PGconn, Ping, TransactionStatus
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DisconnectionError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from ctms.current import extension
from ctms.settings import Settings

if TYPE_CHECKING:
    Connection = psycopg.Connection[tuple[Any, ...]]
    Cursor = psycopg.Cursor[tuple[Any, ...]]
else:
    Connection = psycopg.Connection
    Cursor = psycopg.Cursor


class Question(NamedTuple):
    """A scalar query, one row of one column at the most, and its values."""

    sql: str
    values: Sequence[Any]


class Watch(Protocol):
    """Is told of the connections that requests use, and keeps account."""

    def waiting(self) -> AbstractContextManager[None]:
        """Inside, a request waits, since all are in use."""

    def timed_out(self) -> None:
        """It waited in vain."""

    def spent(self, kind: Literal["read", "write"], seconds: float) -> None:
        """So long a request waited for the answers to its statements."""


class _Unwatched:
    def waiting(self) -> AbstractContextManager[None]:
        return nullcontext()

    def timed_out(self) -> None: ...

    def spent(self, kind: Literal["read", "write"], seconds: float) -> None: ...


class TimedConnection(Connection):
    """Adds up how long it waited for the server: `waited`, in seconds."""

    waited = 0.0

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does; all that is sent and answered goes through here."""
        started = time.perf_counter()
        try:
            return super().wait(*args, **kwargs)
        finally:
            self.waited += time.perf_counter() - started


class Pool(QueuePool):
    """SQLAlchemy's pool, which tells `watch` who waits for a connection; `limit` is how many there may be."""

    watch: Watch = _Unwatched()
    limit = 0

    def _do_get(self) -> ConnectionPoolEntry:
        if self.checkedout() < self.limit:
            return super()._do_get()
        with self.watch.waiting():
            try:
                return super()._do_get()
            except PoolTimeout:
                self.watch.timed_out()
                raise


CONNECT_TIMEOUT_IN_SECONDS = 5
"""A restart of PostgreSQL takes about a second: who needs a connection waits for it this long at the most."""


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


def libpq_url(url: str) -> str:
    """Return an SQLAlchemy URL as libpq reads it."""
    rendered = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return rendered.replace(" ", "%20")  # SQLAlchemy leaves the spaces of a password, which libpq refuses


def connect_patiently(url: str, kind: type[Connection] = psycopg.Connection, **parameters: Any) -> Connection:
    """Connect, and try again while the server is down, starting or stopping, for `CONNECT_TIMEOUT_IN_SECONDS`.

    Raises `psycopg.OperationalError`; at once where waiting cannot help (wrong password, no such database).
    """
    conninfo = libpq_url(url)
    give_up = time.monotonic() + CONNECT_TIMEOUT_IN_SECONDS
    pause = 0.02
    was_up = False
    while True:
        try:
            return kind.connect(conninfo, **parameters)
        except psycopg.OperationalError as error:
            # Without a `pgconn` psycopg did not get as far as the server: its name has no address.
            if error.pgconn is None or time.monotonic() + pause > give_up:
                raise
            if not _is_unavailable(conninfo):
                if was_up:
                    raise
                was_up = True  # it may have come up since the attempt: one more
                continue
        was_up = False
        time.sleep(pause)
        pause = min(pause * 2, 0.5)


def _is_unavailable(conninfo: str) -> bool:
    """Return whether nobody listens, or whoever listens is starting or stopping.

    The error of a failed connection has no SQLSTATE, and its text depends on `lc_messages` and on the names in it. So
    libpq is asked (`PQping`), which knows the socket's error and the SQLSTATE. Any answer but "cannot connect now"
    (57P03) counts as available: neither the password nor TLS need be right.
    """
    given = conninfo_to_dict(conninfo)
    address = {name: given[name] for name in ("host", "hostaddr", "port", "user", "dbname") if name in given}
    asked = make_conninfo("", **address, sslmode="disable", gssencmode="disable", connect_timeout=2)
    return PGconn.ping(asked.encode()) in {Ping.REJECT, Ping.NO_RESPONSE}


def refuse_dead_connection(connection: Connection, entry: ConnectionPoolEntry, _proxy: Any) -> None:
    """Tell the pool to replace an idle connection whose server has gone, without asking the server.

    An idle connection has nothing to read: if there is something, it is the end, or the news that it is near.
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
    """Give the app its pool; `url()` names the server, and nothing is connected yet."""
    parameters = {**connect_arguments(settings), "autocommit": True}
    pool = Pool(
        lambda: connect_patiently(url(), TimedConnection, **parameters),  # type: ignore[arg-type]
        pool_size=settings.db_pool_size,
        max_overflow=settings.db_max_overflow,
        timeout=settings.db_pool_timeout,
        recycle=settings.db_pool_recycle,
        use_lifo=True,
        reset_on_return=None,
    )
    pool.limit = settings.db_pool_size + settings.db_max_overflow
    event.listen(pool, "checkout", refuse_dead_connection)
    app.extensions["ctms.pool"] = pool


@contextmanager
def lend() -> Iterator[Connection]:
    """Lend an autocommit connection of the app's pool.

    Raises `sqlalchemy.exc.TimeoutError` when none gets free in time, `psycopg.OperationalError` when none can be made.
    """
    pool: Pool = extension("ctms.pool")
    try:
        pooled = pool.connect()
    except InvalidRequestError as error:  # a server that is stopping ended the connection, and the one made instead
        raise psycopg.OperationalError("the server ends connections") from error
    connection = cast(Connection, pooled.driver_connection)
    try:
        yield connection
    finally:
        if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
            pooled.invalidate()
        pooled.close()


@contextmanager
def reading() -> Iterator[Connection]:
    """Lend a connection on which every statement is a transaction of its own. Raises as `lend` does."""
    with lend() as connection, _timed(connection, "read"):
        yield connection


@contextmanager
def writing() -> Iterator[Connection]:
    """Lend a connection for one transaction: committed at the end, rolled back by an exception.

    What is executed is sent together, and answered when something is fetched. Raises as `lend` does.
    """
    with lend() as connection, _timed(connection, "write"), connection.pipeline(), connection.transaction():
        yield connection


@contextmanager
def _timed(connection: Connection, kind: Literal["read", "write"]) -> Iterator[None]:
    """Tell the pool's watch how long the connection waits inside. Those that tests lend are not timed."""
    if not isinstance(connection, TimedConnection):
        yield
        return
    before = connection.waited
    try:
        yield
    finally:
        pool: Pool = extension("ctms.pool")
        pool.watch.spent(kind, connection.waited - before)
