"""The compared servers: the service as its users start it, without telemetry, and the baseline app."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from benchmarks.data import CLIENT_ID, Contacts
from ctms.database.generated_secrets import secret_key

PROJECT = Path(__file__).parent.parent
FLASK = str(Path(sys.executable).parent / "flask")
START_TIMEOUT_IN_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running server; `token` is empty if none is required."""

    name: str
    url: str
    pid: int
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request to it."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@contextmanager
def service(contacts: Contacts, workers: int, name: str = "service", **variables: str) -> Iterator[Server]:
    """Start `flask ctms serve` on the database, with additional environment `variables`."""
    environment = {**environment_of(contacts), "CTMS_WORKERS": str(workers), **variables}
    with _service([FLASK, "ctms", "serve"], environment, contacts, name) as server:
        yield server


@contextmanager
def no_telemetry_service(contacts: Contacts, workers: int) -> Iterator[Server]:
    """Start the service without telemetry on the database."""
    environment = {
        "CTMS_DB_URL": contacts.url,
        "CTMS_SECRET_KEY": secret_key(contacts.settings),
        "CTMS_WORKERS": str(workers),
    }
    with _service([sys.executable, "-m", "benchmarks.no_telemetry"], environment, contacts, "no_telemetry") as server:
        yield server


@contextmanager
def _service(command: list[str], environment: dict[str, str], contacts: Contacts, name: str) -> Iterator[Server]:
    log = contacts.settings.data_dir / f"{name}.log"
    with _running(command, environment, "/__lbheartbeat__", log) as (url, pid):
        answer = requests.post(f"{url}/token", auth=(CLIENT_ID, contacts.client_secret), timeout=30)
        answer.raise_for_status()
        yield Server(name, url, pid, answer.json()["access_token"])


def environment_of(contacts: Contacts) -> dict[str, str]:
    """Return the environment variables that select the database."""
    return {"CTMS_DATA_DIR": str(contacts.settings.data_dir)}


@contextmanager
def baseline_app(contacts: Contacts, workers: int) -> Iterator[Server]:
    """Start the baseline app on the database."""
    environment = {"CTMS_DB_URL": contacts.url, "CTMS_SECRET_KEY": "not used" * 4, "CTMS_WORKERS": str(workers)}
    command = [sys.executable, "-m", "benchmarks.baseline"]
    path = f"/ctms/{contacts.ids[0]}"
    with _running(command, environment, path, contacts.settings.data_dir / "baseline.log") as (url, pid):
        yield Server("baseline app", url, pid)


@contextmanager
def _running(command: list[str], variables: dict[str, str], probe: str, log: Path) -> Iterator[tuple[str, int]]:
    port = _free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CTMS_", "PROMETHEUS_"))}
    environment = {**clean, **variables, "HOST": "127.0.0.1", "PORT": str(port)}
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=output, stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(f"{url}{probe}", process, log)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
    while time.monotonic() < give_up:
        if process.poll() is not None:
            raise SystemExit(f"{process.args!r} ended with {process.returncode}: see {log}")
        try:
            requests.get(url, timeout=5).raise_for_status()
        except requests.RequestException:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{process.args!r} does not respond: see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
