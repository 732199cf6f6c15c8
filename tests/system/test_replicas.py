"""Reads from a replica in streaming replication, and from the primary while the replica cannot be used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from ctms.database import replicas
from tests.contacts.factories import minimal
from tests.serving import Served, serve
from tests.system.replication import Server, admin_of, replicated, settings_for
from tests.waiting import wait_until

pytestmark = pytest.mark.long

NEWSLETTER = "replicated"
# Parts of the statements, as the log of a server has them.
SEARCH = "WITH ids AS MATERIALIZED"
PAGE = "e.update_timestamp >="
EXPORT = "BEGIN ISOLATION LEVEL REPEATABLE READ"
DOCUMENTS = "SELECT contact.email_id, coalesce("


class Service:
    """A service with a replica, and a client of it."""

    def __init__(self, running: Served, primary: Server, replica: Server) -> None:
        self.primary = primary
        self.replica = replica
        self._running = running
        self._url = running.url
        self._session = admin_of(running).session()
        self.started = datetime.now(UTC)

    def create(self) -> str:
        """Create a contact that searches find; return its id."""
        contact = {**minimal(), "newsletters": [{"name": NEWSLETTER}]}
        answer = self._session.post(f"{self._url}/ctms", json=contact, timeout=60)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["email"]["email_id"])

    def search(self) -> set[str]:
        """Search for the contacts; return their ids."""
        wanted: dict[str, Any] = {"filter": {"newsletters": {"name": NEWSLETTER}}, "fields": ["email"], "limit": 1000}
        return _ids(self._session.post(f"{self._url}/ctms/search", json=wanted, timeout=60))

    def updates(self, **parameters: Any) -> set[str]:
        """List the contacts that have changed since the start; return their ids."""
        query = {"start": self.started.isoformat(), "limit": 1000, **parameters}
        return _ids(self._session.get(f"{self._url}/updates", params=query, timeout=60))

    def push(self) -> str:
        """Run the worker until nothing is pending; return what the backend has."""
        done = self._running.flask("ctms", "worker", "--once")
        assert done.returncode == 0, done.stderr
        return Path(self._running.environment["CTMS_PLUGIN_JSONL_PATH"]).read_text()

    def export(self) -> str:
        """Export the contacts with two connections; return them."""
        folder = self._running.folder / "export"
        arguments = ("--format", "ndjson", "--compression", "none", "--connections", "2", "--output", str(folder))
        done = self._running.flask("ctms", "export", *arguments)
        assert done.returncode == 0, done.stderr
        return "".join(part.read_text() for part in folder.glob("*.ndjson"))

    def count(self) -> dict[str, int]:
        """Return the number of reads by their result."""
        name = "ctms_replica_reads_total"
        answer = requests.get(f"{self._url}/metrics", params={"name[]": name}, timeout=60)
        samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
        return {sample.labels["result"]: int(sample.value) for sample in samples if sample.name == name}

    def counted(self, before: dict[str, int]) -> dict[str, int]:
        """Return the results of the reads since an earlier count."""
        return {name: new for name, number in self.count().items() if (new := number - before[name])}

    def has_counted(self, before: dict[str, int], **expected: int) -> bool:
        """Wait until there are so many results since an earlier count; return whether they are these."""
        wait_until(lambda: sum(self.counted(before).values()) >= sum(expected.values()))
        return self.counted(before) == expected

    def log(self) -> str:
        """Return what the service has logged."""
        return self._running.output.read_text()

    def cool_down(self) -> None:
        """Wait until the replica is tried again."""
        time.sleep(replicas.COOL_DOWN_SECONDS)


def _ids(answer: requests.Response) -> set[str]:
    assert answer.status_code == 200, answer.text
    return {item["email"]["email_id"] for item in answer.json()["items"]}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a service with a replica."""
    folder: Path = tmp_path_factory.mktemp("replicated")
    with replicated(folder) as (primary, replica):
        variables = {
            "CTMS_DB_READ_URL": replica.url,
            "CTMS_DB_READ_MAX_LAG_SECONDS": "15",  # far more than a busy machine needs
            "CTMS_PLUGIN_JSONL_PATH": str(folder / "contacts.jsonl"),
        }
        with serve(folder, **settings_for(primary), **variables) as running:
            yield Service(running, primary, replica)


def test_the_life_of_a_replica(service: Service) -> None:
    """Steps of one test, because each needs the state that the one before has left."""
    # A client reads its own writes from the replica, at once.
    for _ in range(5):
        before = service.count()
        created = service.create()
        assert created in service.search()
        assert created in service.updates(stale_ok=True)
        assert created in service.updates(stale_ok=True, deleted=True)
        assert service.has_counted(before, replica=3)
    assert service.replica.logged(SEARCH) == 5
    pages = service.replica.logged(PAGE)
    assert pages >= 5
    assert service.primary.logged(SEARCH) == service.primary.logged(PAGE) == 0

    # Without `stale_ok`, the primary is read.
    before = service.count()
    assert created in service.updates()
    assert service.counted(before) == {}
    assert service.replica.logged(PAGE) == pages

    # What the worker pushes is read from the replica, and is not older than the change.
    assert created in service.push()
    assert service.replica.logged(DOCUMENTS) == 1
    assert service.primary.logged(DOCUMENTS) == 0

    # An export takes the snapshot there, for all its connections.
    assert created in service.export()
    assert service.replica.logged(EXPORT) == 2
    assert service.primary.logged(EXPORT) == 0

    # Replay is paused: the primary is read, also by the next reads, which do not wait.
    service.replica.execute("SELECT pg_wal_replay_pause()")
    before = service.count()
    created = service.create()
    assert created in service.search()
    assert created in service.updates(stale_ok=True)
    assert service.has_counted(before, behind=1, cooling_down=1)
    assert "reads use the primary instead of the replica: it is behind" in service.log()

    # It catches up while a read waits for it.
    service.cool_down()
    resume = Timer(0.3, service.replica.execute, ["SELECT pg_wal_replay_resume()"])
    resume.start()
    before = service.count()
    assert created in service.search()
    resume.join()
    assert service.has_counted(before, replica=1)
    assert "reads use the replica again" in service.log()

    # It is stopped, and started again.
    service.replica.stop()
    before = service.count()
    created = service.create()
    assert created in service.search()
    assert created in service.updates(stale_ok=True)
    assert service.has_counted(before, unreachable=1, cooling_down=1)
    service.replica.start()
    service.replica.catch_up(service.primary)
    service.cool_down()
    before = service.count()
    assert created in service.search()
    assert service.has_counted(before, replica=1)

    # It is promoted: what is written to the primary from now on, it never gets.
    service.replica.promote()
    before = service.count()
    created = service.create()
    assert created in service.search()
    wait_until(lambda: service.counted(before))
    assert service.counted(before) in ({"promoted": 1}, {"unreachable": 1})
    assert created in service.updates(stale_ok=True)
    assert set(service.counted(before)) <= {"promoted", "unreachable", "cooling_down"}
