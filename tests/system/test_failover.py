"""The primary fails and its replica is promoted: writes come back within seconds, without a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.contacts.factories import minimal
from tests.forked import ForkedFlask
from tests.serving import Served, end, serve
from tests.system.replication import admin_of, replicated, settings_for
from tests.waiting import wait_until

pytestmark = pytest.mark.long

BOUND_IN_SECONDS = 30
"""Maximum time from the promotion to the first write."""


def write(session: requests.Session, running: Served) -> requests.Response:
    return session.post(f"{running.url}/ctms", json=minimal(), timeout=60)


def write_until_it_works(session: requests.Session, running: Served) -> requests.Response:
    """Return the first write that succeeds, in time. Until then each gets 503, and none another error."""
    started = time.monotonic()
    while (answer := write(session, running)).status_code != 201:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() - started < BOUND_IN_SECONDS
    assert time.monotonic() - started < BOUND_IN_SECONDS
    return answer


@contextmanager
def worker(running: Served) -> Iterator[ForkedFlask]:
    """Run a worker, which must not end by itself."""
    process = ForkedFlask("ctms", "worker", environment=running.environment, output=running.folder / "worker.txt")
    try:
        yield process
        assert process.poll() is None, (running.folder / "worker.txt").read_text()
    finally:
        end(process)


def test_a_replica_is_promoted(tmp_path: Path) -> None:
    pushed = tmp_path / "contacts.jsonl"
    pushed.touch()
    with replicated(tmp_path) as (primary, replica):
        variables = settings_for(primary, replica)
        variables["CTMS_DB_READ_URL"] = f"{variables['CTMS_DB_URL']}?target_session_attrs=prefer-standby"
        variables["CTMS_PLUGIN_JSONL_PATH"] = str(pushed)
        with serve(tmp_path, **variables) as running, worker(running):
            session = admin_of(running).session()
            before = write(session, running)
            assert before.status_code == 201, before.text
            wait_until(lambda: before.json()["email"]["email_id"] in pushed.read_text())
            replica.catch_up(primary)

            primary.stop()
            assert write(session, running).status_code == 503
            replica.promote()

            after = write_until_it_works(session, running)
            assert session.get(f"{running.url}{before.headers['Location']}", timeout=60).status_code == 200
            wait_until(lambda: requests.get(f"{running.url}/__heartbeat__", timeout=60).status_code == 200)
            wait_until(lambda: after.json()["email"]["email_id"] in pushed.read_text())
            wanted = {"start": "2020-01-01", "stale_ok": "true"}
            assert session.get(f"{running.url}/updates", params=wanted, timeout=60).status_code == 200
