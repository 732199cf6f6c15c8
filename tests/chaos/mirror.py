"""Random edits by several clients, a backend that fails, workers that are killed: is its copy the truth at the end?

python -m tests.chaos.mirror --edits 100000 --contacts 10000
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
import uuid
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

from ctms.testing.servers import let_server_enter
from tests.chaos.faulty_server import plugin, run_faulty_server
from tests.chaos.workers import workers
from tests.serving import Served, serve

_LEFT = """
    SELECT (SELECT count(*) FROM outbox),
        (SELECT count(*) FROM procrastinate_jobs WHERE status <> 'todo' OR scheduled_at IS NULL)"""
_ERASURES = """
    SELECT count(*) FILTER (WHERE pending <> 0 OR parked <> 0 OR done <> 1),
        (SELECT count(*) FROM erasure_deletions), (SELECT count(*) FROM erasures) - count(*) FROM erasure_backends"""


class Client(threading.Thread):
    """Creates, replaces, changes and deletes contacts at random."""

    def __init__(self, served: Served, token: str, ids: list[uuid.UUID], edits: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._place = urlsplit(served.url).netloc
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._ids = ids
        self._edits = edits
        self._chance = random.Random(seed)  # noqa: S311
        self.unexpected: list[tuple[str, int]] = []
        self.deleted: set[str] = set()

    def run(self) -> None:
        """Send the edits."""
        connection = HTTPConnection(self._place, timeout=60)
        for number in range(self._edits):
            email_id = self._chance.choice(self._ids)
            method, path, body, expected = self._edit(email_id, number)
            connection.request(method, path, json.dumps(body) if body else None, self._headers)
            answer = connection.getresponse()
            answer.read()
            if method == "DELETE" and answer.status == 200:
                self.deleted.add(str(email_id))
            if answer.status not in expected:
                self.unexpected.append((method, answer.status))
        connection.close()

    def _edit(self, email_id: uuid.UUID, number: int) -> tuple[str, str, dict[str, Any] | None, set[int]]:
        address = f"{email_id}@example.com"
        dice = self._chance.random()
        if dice < 0.05:
            return "DELETE", f"/ctms/{address}", None, {200, 404}
        email = {"email_id": str(email_id), "primary_email": address, "first_name": f"{number}"}
        newsletters = [{"name": f"n{self._chance.randrange(5)}", "subscribed": self._chance.random() < 0.7}]
        if dice < 0.3:
            return "PUT", f"/ctms/{email_id}", {"email": email, "newsletters": newsletters}, {201}
        return (
            "PATCH",
            f"/ctms/{email_id}",
            {"email": {"last_name": f"{number}"}, "newsletters": newsletters},
            {200, 404},
        )


def run(folder: Path, *, edits: int, contacts: int, clients: int, failing: float, seed: int) -> dict[str, Any]:
    """Edit, kill and compare; return the figures. Raises `AssertionError` if anything differs."""
    chance = random.Random(seed)  # noqa: S311
    ids = [uuid.UUID(int=chance.getrandbits(128), version=4) for _ in range(contacts)]
    with run_faulty_server(failing) as other:
        library = plugin(folder, other.url, backend=True)
        with serve(folder, CTMS_WORKERS="2", PYTHONPATH=str(library), CTMS_LOGGING_LEVEL="WARNING") as served:
            token = served.token()
            with workers(2, served.environment, folder, seed) as running:
                began = time.monotonic()
                threads = [Client(served, token, ids, edits // clients, seed + number) for number in range(clients)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                edited = time.monotonic()
                if not running.killed:  # on a fast machine
                    running.kill_one()
                running.spare()
                _wait_until_pushed(served)
                pushed = time.monotonic()
                killed = running.killed
                unexpected = [one for thread in threads for one in thread.unexpected]
                assert not unexpected, unexpected[:10]
                deleted = {one for thread in threads for one in thread.deleted}
                assert deleted <= other.gone, "an erasure was done before the backend had deleted"
                differing = _differing(served, token, ids, other.copies)
                assert not differing, f"{len(differing)} contacts differ, such as {differing[:3]}"
    return {
        "edits": edits,
        "seconds of editing": round(edited - began, 1),
        "seconds until everything was pushed": round(pushed - edited, 1),
        "workers killed": killed,
        "calls": other.calls,
        "failed calls": other.failures,
        "contacts in the copy": len(other.copies),
    }


def _wait_until_pushed(served: Served) -> None:
    give_up = time.monotonic() + 600
    with psycopg.connect(served.database_url(), autocommit=True) as connection:
        while (left := connection.execute(_LEFT).fetchone()) != (0, 0):
            assert time.monotonic() < give_up, f"left over (contacts, jobs): {left}"
            time.sleep(0.1)
        open_, left, unknown = connection.execute(_ERASURES).fetchone() or ()
        assert (open_, left, unknown) == (0, 0, 0), (
            f"erasures (open, deletions left, without a backend): {open_, left, unknown}"
        )


def _differing(served: Served, token: str, ids: list[uuid.UUID], copies: dict[str, Any]) -> list[str]:
    connection = HTTPConnection(urlsplit(served.url).netloc, timeout=60)
    found = []
    for email_id in ids:
        connection.request("GET", f"/ctms/{email_id}", headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = json.loads(answer.read())
        truth = body if answer.status == 200 else None
        if copies.get(str(email_id)) != truth:
            found.append(str(email_id))
    connection.close()
    return found


def main() -> None:
    """Run it with the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--contacts", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--failing", type=float, default=0.2, help="how many of the backend's calls fail, 0 to 1")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        let_server_enter(Path(folder))
        for name, value in run(Path(folder), **vars(given)).items():
            print(f"{name}: {value:,}")


if __name__ == "__main__":
    main()
