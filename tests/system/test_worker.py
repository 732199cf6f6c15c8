"""The background service as it is run: real processes, which are stopped, killed, and lose their database."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
import requests

from ctms.sync.backends import _DONE
from ctms.testing import contact_body
from tests.forked import ForkedFlask
from tests.serving import STOP_TIMEOUT_IN_SECONDS, Served, free_port, serve
from tests.system.test_restarts import pg_ctl, start_again
from tests.waiting import until

PLUGIN = """
import json, os, time
from pathlib import Path

from ctms.plugins import Backend, DeletionHandler, Refused, hookimpl

FOLDER = Path(os.environ["MIRROR_FOLDER"])


def note(what, ids):
    with (FOLDER / "calls.jsonl").open("a") as file:
        file.write(json.dumps({"what": what, "pid": os.getpid(), "ids": ids}) + "\\n")


class Mirror:
    def push(self, contacts, idempotency_key):
        ids = [contact.email_id for contact in contacts]
        note("begins", ids)
        if (FOLDER / "refuse").exists():
            return Refused("no")
        while (FOLDER / "hold").exists():
            time.sleep(0.02)
        note("pushed", ids)

    def erase(self, identities):
        note("erased", [one["email_id"] for one in identities])


@hookimpl
def ctms_backends():
    yield Backend(name="mirror", implementation=Mirror(), concurrency=8)


@hookimpl
def ctms_deletion_handlers():
    yield DeletionHandler(name="mirror", implementation=Mirror())
"""


@dataclass
class Running:
    """The service with the plugin, and the plugin's calls."""

    served: Served
    folder: Path
    database: psycopg.Connection
    workers: list[ForkedFlask] = field(default_factory=list)

    @property
    def hold(self) -> Path:
        """While this file is there, no push ends."""
        return self.folder / "hold"

    def calls(self, what: str) -> list[dict[str, Any]]:
        """Return the calls that began, pushed or erased."""
        file = self.folder / "calls.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [call for line in lines if (call := json.loads(line))["what"] == what]

    def ids(self, what: str) -> set[str]:
        """Return the contacts of those calls."""
        return {one for call in self.calls(what) for one in call["ids"]}

    def make(self, number: int) -> set[str]:
        """Make contacts, past the API, that wait for the backend."""
        sql = """
            WITH made AS (
                INSERT INTO emails (email_id, primary_email)
                SELECT gen_random_uuid(), md5(random()::text || n) || '@example.com' FROM generate_series(1, %s) AS n
                RETURNING email_id)
            INSERT INTO outbox (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
            SELECT 'mirror', email_id, 1, 0, now(), now(), 0, 0 FROM made RETURNING email_id::text"""
        return {row[0] for row in self.database.execute(sql, (number,)).fetchall()}

    def left(self) -> int:
        """Return how many contacts wait."""
        found = self.database.execute("SELECT count(*) FROM outbox").fetchone()
        assert found is not None
        return int(found[0])

    def set_synchronised(self, moment: datetime | None) -> None:
        """Store when the backend was synchronised; None: never."""
        sql = """
            INSERT INTO receivers (kind, name, failures, synchronised_at) VALUES ('backend', 'mirror', 0, %s)
            ON CONFLICT (kind, name) DO UPDATE SET synchronised_at = excluded.synchronised_at"""
        self.database.execute(sql, (moment,))

    def start(self, *options: str, **variables: str) -> ForkedFlask:
        """Start a worker."""
        environment = {**self.served.environment, **variables}
        worker = ForkedFlask("ctms", "worker", *options, environment=environment, output=self.folder / "workers.txt")
        self.workers.append(worker)
        return worker

    def text(self) -> str:
        """Return the workers' output."""
        file = self.folder / "workers.txt"
        return file.read_text() if file.exists() else ""

    def until(self, condition: Callable[[], Any], seconds: float = 200) -> None:
        """Wait until it holds."""
        give_up = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < give_up, self.text()
            time.sleep(0.05)

    def stop(self, worker: ForkedFlask) -> int:
        """End a worker with SIGTERM; returns its exit status."""
        worker.send_signal(signal.SIGTERM)
        return worker.wait(timeout=STOP_TIMEOUT_IN_SECONDS)


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    folder = tmp_path_factory.mktemp("mirrored")
    library = folder / "lib"
    metadata = library / "mirror-1.0.dist-info"
    metadata.mkdir(parents=True)
    (library / "mirror_plugin.py").write_text(PLUGIN)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: mirror\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[ctms]\nmirror = mirror_plugin\n")
    data = folder / "data"
    data.mkdir()
    with serve(data, PYTHONPATH=str(library), MIRROR_FOLDER=str(folder)) as served:
        yield served, folder


@contextmanager
def connected(served: Served) -> Iterator[psycopg.Connection]:
    with psycopg.connect(served.database_url(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def running(instance: tuple[Served, Path]) -> Iterator[Running]:
    served, folder = instance
    with connected(served) as connection:
        running = Running(served, folder, connection)
        running.set_synchronised(datetime.now(UTC))
        yield running
        running.hold.unlink(missing_ok=True)
        for worker in running.workers:
            worker.kill()
            worker.wait()
        with suppress(psycopg.OperationalError):  # of a test that restarted the server
            connection.execute("TRUNCATE outbox, procrastinate_workers CASCADE")
    for name in ("calls.jsonl", "workers.txt"):
        (folder / name).unlink(missing_ok=True)


def test_contacts_reach_the_backend_and_leave_it(running: Running) -> None:
    port = free_port()
    worker = running.start(CTMS_WORKER_METRICS_PORT=str(port), CTMS_LOGGING_LEVEL="INFO")
    with running.served.session() as session:
        contact = session.post(f"{running.served.url}/ctms", json=contact_body(), timeout=60).json()["email"]
        running.until(lambda: contact["email_id"] in running.ids("pushed"))
        deleted = session.delete(f"{running.served.url}/ctms/{contact['primary_email']}", timeout=60)
    assert deleted.status_code == 200
    running.until(lambda: contact["email_id"] in running.ids("erased"))
    running.until(lambda: len(running.calls("pushed")) == 2 and running.left() == 0)

    counted = 'ctms_background_requests_total{backend="mirror",method="%s",status="done"} %d.0'
    page = until(
        lambda: requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text,
        lambda page: counted % ("erase", 1) in page,  # it is counted after the backend has noted it
    )
    assert running.stop(worker) == 0

    assert counted % ("push", 2) in page
    assert counted % ("erase", 1) in page
    assert "ctms_background_last_loop_timestamp_seconds" in page
    words = running.text()
    (line,) = [line for line in words.splitlines() if "stored documents: " not in line]  # of housekeeping
    assert "working for backend mirror, deletion handler mirror" in line
    assert contact["primary_email"] not in page + words
    assert running.database.execute("SELECT count(*) FROM procrastinate_workers").fetchone() == (0,)


@pytest.mark.long
def test_the_batch_of_a_killed_worker_is_taken_over(running: Running) -> None:
    running.hold.touch()
    made = running.make(1)
    killed = running.start()
    running.until(lambda: running.ids("begins") == made)
    killed.kill()
    killed.wait()
    running.hold.unlink()
    assert running.ids("pushed") == set()
    running.start()

    running.until(lambda: running.ids("pushed") == made and running.left() == 0)

    assert "of a dead worker is recovered" in running.text()


def test_sigterm_ends_it_after_the_batch_in_hand(running: Running) -> None:
    running.hold.touch()
    made = running.make(1)
    worker = running.start()
    running.until(lambda: running.ids("begins") == made)

    worker.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(timeout=1)
    running.hold.unlink()

    assert worker.wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0
    assert running.left() == 0
    assert len(running.calls("pushed")) == 1
    left = running.database.execute("SELECT status FROM procrastinate_jobs WHERE status = 'doing'").fetchall()
    assert left == []


def test_workers_respect_the_concurrency_and_share_lanes(running: Running) -> None:
    running.hold.touch()
    made = running.make(200)
    many = running.start("--concurrency", "7")
    one = running.start("--concurrency", "1")

    running.until(lambda: len(running.calls("begins")) == 8)
    pids = [call["pid"] for call in running.calls("begins")]
    assert {pids.count(many.pid), pids.count(one.pid)} == {7, 1}

    running.hold.unlink()
    running.until(lambda: running.left() == 0)
    assert running.ids("pushed") == made
    assert sum(len(call["ids"]) for call in running.calls("pushed")) == 200


def test_an_edit_that_commits_while_the_push_is_settled_is_not_lost(running: Running) -> None:
    made = sorted(running.make(3))
    with connected(running.served) as editor, connected(running.served) as settler:
        editor.execute("BEGIN")
        editor.execute("UPDATE outbox SET version = 2 WHERE email_id = %s", (made[1],))
        values = {"backend": "mirror", "ids": made[::-1], "versions": [1] * 3, "began": datetime.now(UTC), "back": []}
        settling = Thread(target=settler.execute, args=(_DONE, values))
        settling.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
        pid = settler.info.backend_pid
        running.until(lambda: running.database.execute(waits, (pid,)).fetchone() == (1,))
        editor.execute("COMMIT")
        settling.join()

    left = running.database.execute("SELECT email_id::text, version FROM outbox")
    assert left.fetchall() == [(made[1], 2)]


def test_once_ends_when_nothing_is_due(running: Running) -> None:
    made = running.make(250)
    parts = [running.start("--once"), running.start("--once", "--queue", "backends")]

    assert [part.wait(timeout=200) for part in parts] == [0, 0], running.text()

    assert running.ids("pushed") == made
    assert running.left() == 0
    running.make(1)
    assert running.start("--once", "--queue", "erasures").wait(timeout=200) == 0
    assert running.left() == 1


def test_once_prints_a_summary(running: Running) -> None:
    def said(status: int) -> list[str]:
        before = len(running.text())
        assert running.start("--once").wait(timeout=200) == status, running.text()
        return [line for line in running.text()[before:].splitlines() if line.startswith(("CTMS: ", "Error: "))]

    working = "CTMS: working for backend mirror, deletion handler mirror"
    assert working in said(0)
    assert said(0) == [working, "CTMS: nothing was due"]

    running.make(2)
    assert said(0) == [working, "CTMS: backend mirror: 2 contacts delivered"]

    running.make(1)
    refuse = running.folder / "refuse"
    refuse.touch()
    try:
        assert said(3) == [
            working,
            "CTMS: backend mirror: 1 contact parked",
            "Error: 1 contact parked or to be tried again: see `flask ctms backends list`",
        ]
    finally:
        refuse.unlink()
        running.database.execute("DELETE FROM outbox")


def test_it_names_a_backend_that_was_never_synchronised(running: Running) -> None:
    running.make(1)
    running.database.execute("DELETE FROM outbox")  # as for a contact from before the backend
    running.set_synchronised(None)
    remark = "CTMS: warning: the backend mirror was never synchronised: run `flask ctms backends resync mirror --all`"
    running.make(1)
    assert running.start("--once").wait(timeout=200) == 0
    before = len(running.text())
    assert running.start("--once").wait(timeout=200) == 0
    assert remark in running.text()[before:], "its contacts do not wait any more"

    assert running.served.flask("ctms", "backends", "resync", "mirror", "--all", "--yes").returncode == 0
    before = len(running.text())
    assert running.start("--once").wait(timeout=200) == 0
    assert "never synchronised" not in running.text()[before:]


def test_it_outlives_a_restart_of_the_database(running: Running) -> None:
    worker = running.start()
    first = running.make(20)
    running.until(lambda: running.left() == 0)
    before = running.text()

    pg_ctl(running.served.folder, "-m", "immediate", "restart")

    with connected(running.served) as connection:
        running.database = connection
        second = running.make(20)
        running.until(lambda: running.left() == 0)
        assert running.ids("pushed") == first | second
        assert running.stop(worker) == 0
        connection.execute("TRUNCATE procrastinate_workers CASCADE")
    assert "Traceback (most recent call last)" not in running.text()
    assert running.text().startswith(before)


def test_sigterm_ends_it_soon_while_the_database_is_down(running: Running) -> None:
    """Both one that still waits for a connection to sign off with, and one that tries to begin again."""

    def seconds_of_stop(worker: ForkedFlask) -> float:
        began = time.monotonic()
        assert running.stop(worker) == 0
        return time.monotonic() - began

    noticed = r'"Pid": (\d+), .*(?:listener error|the database is not available)'
    working, retrying = running.start(), running.start()
    running.until(lambda: running.text().count("working for") == 2)
    pg_ctl(running.served.folder, "-m", "immediate", "stop")
    try:
        both = {str(working.pid), str(retrying.pid)}
        running.until(lambda: set(re.findall(noticed, running.text())) == both)
        first = seconds_of_stop(working)
        warnings = running.text().count("the database is not available")
        running.until(lambda: running.text().count("the database is not available") > warnings)
        time.sleep(3)  # longer than its pause
        second = seconds_of_stop(retrying)
    finally:
        start_again(running.served.folder)

    # Procrastinate would wait 30 seconds for each connection.
    assert (first < 40, second < 28) == (True, True), (first, second)
