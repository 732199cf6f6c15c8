"""A rate limit that two instances share: what they admit together, and what happens without the database."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from ctms.clients.rate_limits import RateLimit
from tests.conftest import SECRET_KEY, empty_database
from tests.serving import Served, environment_for, run_flask, serve

ID = "id_limited"
LIMIT = RateLimit(4, 1, 40)
"""A rate that a machine exceeds however busy it is: otherwise nobody would be refused."""
PROCESSES = 4
THREADS = 4
REFUSALS = 25
"""Number of refusals after which a sender ends, however fast the machine is."""

SEARCH = "/ctms?primary_email=jane@example.com"


@pytest.fixture(scope="module")
def variables(postgres: str, worker_id: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the settings of instances that share a migrated database."""
    found = {
        "CTMS_DB_URL": empty_database(postgres, f"limits_{worker_id}"),
        "CTMS_SECRET_KEY": SECRET_KEY,
        "CTMS_WORKERS": "2",
        "CTMS_THREADS": str(THREADS),
    }
    environment = environment_for(tmp_path_factory.mktemp("limits"), **found)
    assert run_flask("db", "upgrade", environment=environment).returncode == 0
    return found


def send(one: Served, token: str, status: int, number: int) -> Counter[int]:
    """Send requests until so many had this status, each on a new connection, so that they reach all processes."""
    found: Counter[int] = Counter()
    while found[status] < number:
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        found[requests.get(f"{one.url}{SEARCH}", headers=headers, timeout=60).status_code] += 1
    return found


def send_to_all(instances: Sequence[Served], token: str, status: int, number: int) -> Counter[int]:
    """Send requests to the instances with four senders each; return the statuses."""
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(send, one, token, status, number) for one in instances for _ in range(4)]
    return sum((one.result() for one in sent), Counter[int]())


def test_two_instances_admit_what_one_would(variables: dict[str, str], tmp_path: Path) -> None:
    first_folder, second_folder = tmp_path / "first", tmp_path / "second"
    for folder in (first_folder, second_folder):
        folder.mkdir()
    with serve(first_folder, **variables) as first, serve(second_folder, **variables) as second:
        made = first.flask("ctms", "clients", "create", ID, "shop@example.com", "--role", "viewer")
        first.client_id, first.client_secret = ID, made.stdout.split()[-1]
        limited = first.flask("ctms", "clients", "limit", ID, "--rate", LIMIT.rate, "--burst", str(LIMIT.burst))
        assert limited.returncode == 0, limited.stderr
        token = first.token()

        started = time.monotonic()
        found = send_to_all((first, second), token, 429, REFUSALS)
        elapsed = time.monotonic() - started

        assert set(found) == {200, 429}, found
        held = PROCESSES * (LIMIT.chunk + THREADS)
        assert LIMIT.burst - held <= found[200] <= LIMIT.burst + LIMIT.per_second * elapsed + held
        assert first.flask("ctms", "clients", "limit", ID, "--remove").returncode == 0
        time.sleep(1)  # the stated delay of a change
        assert set(send_to_all((first, second), token, 200, 10)) == {200}
