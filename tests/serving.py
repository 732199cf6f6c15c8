"""The service as its users start it: `flask ctms serve` in a separate process, called over HTTP."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import requests

from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url
from tests import forked
from tests.forked import ForkedFlask
from tests.prepared import prepare
from tests.waiting import until

FLASK = str(Path(sys.executable).parent / "flask")
START_TIMEOUT_IN_SECONDS = 300
STOP_TIMEOUT_IN_SECONDS = 200
PORTS = range(10_000, 32_768)
"""Below the ephemeral ports of Linux, so that no client takes a port between its choice and its use."""
PORTS_FILE = "/tmp/ctms-test-ports"  # noqa: S108  the same for all that run tests at once

_reserved: set[int] = set()

Process = subprocess.Popen[str] | ForkedFlask


@dataclass
class Served:
    """A running service."""

    url: str
    folder: Path
    process: Process
    output: Path
    environment: dict[str, str] = field(repr=False)
    client_id: str = "id_admin"
    client_secret: str = field(default="", repr=False)

    def token(self) -> str:
        """Request a token."""
        response = requests.post(f"{self.url}/token", auth=(self.client_id, self.client_secret), timeout=30)
        response.raise_for_status()
        return str(response.json()["access_token"])

    def session(self) -> requests.Session:
        """Return a session that sends a token."""
        session = requests.Session()
        session.headers["Authorization"] = f"Bearer {self.token()}"
        return session

    def flask(self, *arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        """Run a `flask` command on the database of the service."""
        return run_flask(*arguments, environment=self.environment, **kwargs)

    def database_url(self) -> str:
        """Return the libpq URL of the embedded database; the service keeps it running."""
        with EmbeddedServer.acquire(self.folder) as server:
            return libpq_url(server.url)

    def stop(self) -> int:
        """Stop the service with SIGTERM, and return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=STOP_TIMEOUT_IN_SECONDS)


def environment_for(folder: Path, **variables: str) -> dict[str, str]:
    """Return an environment whose only settings are these and the embedded database in `folder`."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CTMS_", "PROMETHEUS_")) and name not in {"HOST", "PORT", "SENTRY_DSN"}
    }
    return {**clean, "CTMS_DATA_DIR": str(folder), **variables}


def run_flask(
    *arguments: str,
    environment: dict[str, str],
    timeout: float = 300,
    cwd: Path | str | None = None,
    typed: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a `flask` command without a terminal and wait for it; `typed` is its standard input.

    Imports take most of the time of a command, so the process is forked from one that has already imported everything.
    """
    if typed is None:
        return forked.run_flask(*arguments, environment=environment, cwd=Path(cwd or Path.cwd()), timeout=timeout)
    return subprocess.run(
        [FLASK, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        input=typed,
        timeout=timeout,
        check=False,
        cwd=cwd,
    )


def upgrade_twice_at_once(environment: dict[str, str]) -> None:
    """Run `flask db upgrade` in two processes at the same time. Raises `AssertionError` if one fails."""
    both = [
        subprocess.Popen(
            [FLASK, "db", "upgrade"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors


@cache
def _ports_file() -> int:
    """Open the file whose bytes stand for the ports: one for all users, and for all values of TMPDIR."""
    with suppress(FileExistsError):
        made = os.open(PORTS_FILE, os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(made, 0o666)  # whatever the umask is
        os.close(made)
    return os.open(PORTS_FILE, os.O_RDWR)


def _reserve(port: int) -> bool:
    """Reserve a port until this process ends; return whether no other test has it."""
    try:
        fcntl.lockf(_ports_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    if port in _reserved:  # a process's own lock does not exclude it
        return False
    _reserved.add(port)
    return True


def free_port() -> int:
    """Return an unused port, which no other test gets: what uses it may start later.

    No seed determines it, because other test processes choose ports, too.
    """
    while True:
        port = secrets.choice(PORTS)
        if not _reserve(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


@contextmanager
def serve(folder: Path, *, flask: str = FLASK, **variables: str) -> Iterator[Served]:
    """Run the service with its database in `folder`; `flask` may be the command of another environment.

    Unless the folder has a database or the variables name one, a prepared database is copied: see `tests.prepared`.
    The process is forked like those of `run_flask`; its serving processes are started as always.
    """
    if "CTMS_DB_URL" not in variables:
        prepare(folder, FLASK, environment_for(folder))
    with _serve(folder, flask, is_forked=flask == FLASK, variables=variables) as running:
        yield running


@contextmanager
def serve_as_is(folder: Path, *, flask: str = FLASK, **variables: str) -> Iterator[Served]:
    """Run the service like `serve`, but without preparing `folder`, and as a shell starts it."""
    with _serve(folder, flask, is_forked=False, variables=variables) as running:
        yield running


@contextmanager
def _serve(folder: Path, flask: str, *, is_forked: bool, variables: dict[str, str]) -> Iterator[Served]:
    port = free_port()
    environment = environment_for(folder, **{"PORT": str(port), "CTMS_WORKERS": "1", **variables})
    output = folder / "output.txt"
    process: Process
    if is_forked:
        output.write_text("")
        process = ForkedFlask("ctms", "serve", environment=environment, output=output)
    else:
        with output.open("w") as file:
            process = subprocess.Popen(
                [flask, "ctms", "serve"], env=environment, stdout=file, stderr=subprocess.STDOUT, text=True
            )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_announced(process, output)
        wait_until_up(url, process, output)
        secret = re.search(r"client secret: +(secret_\S+)", output.read_text())
        yield Served(url, folder, process, output, environment, client_secret=secret[1] if secret else "")
    finally:
        end(process)


def end(process: subprocess.Popen[Any] | ForkedFlask) -> None:
    """Stop a process with SIGTERM if it is running; kill it after a timeout, which is an error."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_TIMEOUT_IN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def wait_until_announced(process: Process, output: Path) -> None:
    """Wait until the service prints its address."""
    give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
    while "CTMS: serving on " not in (written := output.read_text()) or not written.endswith("\n"):
        assert process.poll() is None, f"the service ended with {process.returncode}: {written}"
        assert time.monotonic() < give_up, f"the service does not respond: {written}"
        time.sleep(0.02)


def wait_for_checks(url: str, **expected: str) -> None:
    """Wait until `/__heartbeat__` has these results. A check has two seconds, which a busy machine may exceed once."""

    def look() -> tuple[int, Any]:
        answer = requests.get(f"{url}/__heartbeat__", timeout=60)
        return answer.status_code, answer.json()["checks"]

    assert until(look, (200, expected).__eq__) == (200, expected)


def wait_until_up(url: str, process: Process, output: Path) -> None:
    """Wait until the service responds."""
    give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise AssertionError(f"the service ended with {process.returncode}: {output.read_text()}")
        try:
            requests.get(f"{url}/__lbheartbeat__", timeout=30).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"the service does not respond: {output.read_text()}")
