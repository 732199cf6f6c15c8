"""The load generator: `wrk`, which sends the given requests and checks every status."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cpu_time import cpu_seconds
from benchmarks.data import Contacts
from benchmarks.kinds import Kind, Request
from benchmarks.servers import Server

_SCRIPT = Path(__file__).with_name("load.lua")
MAX_REQUESTS_PER_SECOND = 4_000
"""Non-repeatable requests are created beforehand: more than any server can handle here."""


@dataclass(frozen=True)
class Measurement:
    """The result of one run.

    `rate`: requests per second. `p50`, `p99`: percentiles of the latency in milliseconds. `server`, `database`: CPU
    time per request of the server and of PostgreSQL in milliseconds.
    """

    rate: float
    p50: float
    p99: float
    server: float
    database: float


class WrongAnswer(Exception):
    """A server responded incorrectly or not at all, so its figures mean nothing."""


def measure(server: Server, kind: Kind, contacts: Contacts, *, seconds: int, connections: int) -> Measurement:
    """Send requests of a kind over `connections` kept-alive connections, each as soon as the previous response arrives.

    Raises `WrongAnswer` unless every response has the expected status.
    """
    requests = kind.requests(contacts, seconds * MAX_REQUESTS_PER_SECOND)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(_line(request) for request in requests)
        file.flush()
        worked = cpu_seconds(server.pid), cpu_seconds(contacts.database_pid)
        headers = [part for name, value in server.headers.items() for part in ("-H", f"{name}: {value}")]
        done = subprocess.run(
            [
                *(wrk(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"),
                *("--timeout", "10s", *headers, "--script", str(_SCRIPT), server.url, "--"),
                *(file.name, str(kind.status), "once" if kind.once else "again"),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=seconds + 60,
        )
        worked = cpu_seconds(server.pid) - worked[0], cpu_seconds(contacts.database_pid) - worked[1]
    found = json.loads(done.stdout.splitlines()[-1])
    if found["exhausted"]:
        raise WrongAnswer(f"{server.name}, {kind.title}: {len(requests)} requests were too few")
    if found["wrong"] or found["broken"] or not found["requests"]:
        raise WrongAnswer(
            f"{server.name}, {kind.title}: of {found['requests']} responses {found['wrong']} did not have the status "
            f"{kind.status}, {found['broken']} connections broke"
        )
    each = [seconds * 1000 / found["requests"] for seconds in worked]
    return Measurement(found["requests"] / found["seconds"], found["p50"], found["p99"], *each)


def wrk() -> str:
    """Return the path of `wrk`, which is installed if it is missing and `apt-get` is available."""
    found = shutil.which("wrk")
    if found is None and shutil.which("apt-get"):
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "install", "--yes", "--quiet", "wrk"], check=False)
        found = shutil.which("wrk")
    if found is None:
        raise SystemExit(
            "wrk is missing: install it (Debian and Ubuntu: `apt-get install wrk`, macOS: `brew install wrk`)"
        )
    return found


def _line(request: Request) -> str:
    return f"{request.method}\t{request.path}\t{request.body}\n"
