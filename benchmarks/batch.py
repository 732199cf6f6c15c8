"""Compare batches with single requests: `python -m benchmarks.batch`.

One client makes the same kind of change to random contacts, in turns by PATCH, one request after the other, and by
upserts in `POST /ctms/batch`. Prints the contacts per second of both, their ratio in each round, the CPU time per
contact, and the peak memory of the service.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import data, servers
from benchmarks.cpu_time import cpu_seconds

SIZE = 1000
"""Number of items of a batch."""

MODES = ("PATCH", "batch")


@dataclass(frozen=True)
class BatchMeasurement:
    """The result of one measurement: contacts per second, and CPU milliseconds per contact."""

    rate: float
    server: float
    database: float


class Client:
    """A client with one connection, which costs little itself."""

    def __init__(self, server: servers.Server, contacts: data.Contacts) -> None:
        self._server = server
        self._contacts = contacts
        self._connection = HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        self._numbers = count()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def measure(self, mode: str, number: int) -> BatchMeasurement:
        """Change this many contacts."""
        ids = [str(one) for one in random.sample(self._contacts.ids, number)]
        changes = [_change(next(self._numbers)) for _ in ids]
        started, worked = time.perf_counter(), self._cpu()
        if mode == "PATCH":
            for email_id, change in zip(ids, changes, strict=True):
                self._send("PATCH", f"/ctms/{email_id}", change, 200)
        else:
            for start in range(0, number, SIZE):
                some = slice(start, start + SIZE)
                found = zip(ids[some], changes[some], strict=True)
                items = [{"match": {"email_id": email_id}, "contact": change} for email_id, change in found]
                answer = json.loads(self._send("POST", "/ctms/batch", {"items": items}, 207))
                assert {one["status"] for one in answer["items"]} == {"updated"}  # noqa: S101
        took = time.perf_counter() - started
        server, database = ((after - before) * 1000 / number for before, after in zip(worked, self._cpu(), strict=True))
        return BatchMeasurement(number / took, server, database)

    def _send(self, method: str, path: str, body: Any, status: int) -> bytes:
        headers = {**self._server.headers, "Content-Type": "application/json"}
        self._connection.request(method, path, json.dumps(body), headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status != status:
            raise SystemExit(f"{method} returned {response.status}")
        return text

    def _cpu(self) -> tuple[float, float]:
        return cpu_seconds(self._server.pid), cpu_seconds(self._contacts.database_pid)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved measurements (default: %(default)s)")
    parser.add_argument("--number", type=int, default=2 * SIZE, help="contacts in each (default: %(default)s)")
    options = parser.parse_args(arguments)
    measured: dict[str, list[BatchMeasurement]] = {mode: [] for mode in MODES}
    with data.prepared(options.data_dir, options.contacts) as contacts, servers.service(contacts, 1) as service:
        with closing(Client(service, contacts)) as client:
            for number in range(options.rounds + 1):  # the first warms up
                for mode in MODES if number % 2 == 0 else reversed(MODES):
                    result = client.measure(mode, options.number)
                    if number:
                        measured[mode].append(result)
        memory = max(_peak(pid) for pid in _family(service.pid))
    for mode, results in measured.items():
        rates = [one.rate for one in results]
        server, database = (statistics.median(getattr(one, name) for one in results) for name in ("server", "database"))
        print(
            f"{mode}: {statistics.median(rates):,.0f} contacts/s ({min(rates):,.0f} to {max(rates):,.0f}), CPU time per"
            f" contact: service {server:.2f} ms, PostgreSQL {database:.2f} ms"
        )
    ratios = [batch.rate / single.rate for single, batch in zip(*measured.values(), strict=True)]
    print(f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")
    print(f"peak memory of the largest process: {memory:,.0f} MB")
    return 0


def _change(number: int) -> dict[str, Any]:
    """Return a change that no contact has yet."""
    return {
        "email": {"first_name": f"Name {number}"},
        "newsletters": [{"name": "hubs", "source": f"https://example.com/{number}"}],
        "waitlists": [{"name": "relay", "fields": {"geo": "ca" if number % 2 else "de"}}],
    }


def _family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return [pid, *(one for child in found for one in _family(child))]


def _peak(pid: int) -> float:
    """Return the peak memory of a process in MB, 0 without /proc."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


if __name__ == "__main__":
    sys.exit(main())
