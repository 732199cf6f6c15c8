"""The whole way from a request to a panel, run for real.

Two environments, each with its API and its worker, a Prometheus that scrapes them and an InfluxDB that keeps it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from subprocess import Popen
from threading import Lock
from typing import Any

import requests

from tests.contacts.factories import minimal
from tests.hooks.distributions import Site
from tests.monitoring import programs
from tests.monitoring.programs import InfluxDB, Prometheus
from tests.serving import FLASK, Served, free_port, serve
from tests.waiting import until

Key = tuple[str, str, str]
"""Method, path template, status."""

ENVIRONMENTS = ("production", "staging")

MAILING = """
from ctms.plugins import Backend, Done, hookimpl


class Mailing:
    def push(self, contacts, idempotency_key):
        return Done()


@hookimpl
def ctms_backends(settings):
    yield Backend(name="mailing", implementation=Mailing())
"""


@dataclass
class Client:
    """Calls a service and counts the responses; `broken` are requests without one."""

    served: Served
    answered: Counter[Key] = field(default_factory=Counter)
    broken: Counter[tuple[str, str]] = field(default_factory=Counter)
    session: requests.Session = field(default_factory=requests.Session)
    lock: Lock = field(default_factory=Lock)

    def authenticate(self) -> None:
        """Get a token for later requests."""
        answer = self.call("POST", "/token", auth=(self.served.client_id, self.served.client_secret))
        assert answer is not None
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, template: str | None = None, **how: Any) -> requests.Response | None:
        """Send a request; returns the answer, if there is one."""
        named = template or path.partition("?")[0]
        try:
            answer = self.session.request(method, f"{self.served.url}{path}", timeout=30, **how)
        except requests.RequestException:
            with self.lock:
                self.broken[method, named] += 1
            return None
        with self.lock:
            self.answered[method, named, str(answer.status_code)] += 1
        return answer

    def some_of_everything(self, times: int) -> None:
        """Create, read and change contacts, request missing ones, and fail to get tokens."""
        for _ in range(times):
            created = self.call("POST", "/ctms", json=minimal())
            assert created is not None
            path = created.headers["Location"]
            self.call("GET", path, "/ctms/{email_id}")
            self.call("PATCH", path, "/ctms/{email_id}", json={"waitlists": [{"name": "vpn", "fields": {"geo": "fr"}}]})
            self.call("GET", f"/ctms?primary_email={created.json()['email']['primary_email']}")
            self.call("GET", f"{path[:-8]}00000000", "/ctms/{email_id}")
            self.call("GET", "/nowhere", "unmatched")
        self.call("GET", "/ctms?primary_email=x@example.com", headers={"Authorization": "Bearer none"})
        for _ in range(80):
            self.call("POST", "/token", auth=("id_nobody", "secret"))


RULES = """
[rules.ancient]
action = "erase"
when.create_timestamp.older_than = "100y"
"""
"""Retention rules that match nobody: with them a worker exports the metrics of retention."""


@contextmanager
def worker(served: Served) -> Iterator[tuple[Popen[bytes], str]]:
    """Run the background service beside a service; gives its process and where it serves its metrics."""
    port = free_port()
    rules = served.folder / "retention.toml"
    rules.write_text(RULES)
    environment = {
        **served.environment,
        "CTMS_WORKER_METRICS_PORT": str(port),
        "CTMS_RETENTION_FILE": str(rules),
    }
    url, output = f"http://127.0.0.1:{port}/metrics", served.folder / "worker.txt"
    with programs.running([FLASK, "ctms", "worker"], url, output, environment) as process:
        yield process, f"127.0.0.1:{port}"


@dataclass(frozen=True)
class Answer:
    """A series of an answer: its labels, its values with their times."""

    labels: dict[str, str]
    points: list[tuple[float, float]]


@dataclass
class Pipeline:
    """All of it, running; services, workers and clients by environment."""

    start: float
    database: InfluxDB
    prometheus: Prometheus
    services: dict[str, Served]
    workers: dict[str, Popen[bytes]]
    clients: dict[str, Client]

    def ask(self, target: dict[str, Any], environment: str, prometheus: Prometheus | None = None) -> list[Answer]:
        """Run a panel's query for the time since the start; return the series."""
        if "query" in target:
            query = target["query"].replace("$timeFilter", f"time >= {int(self.start)}s AND time <= now()")
            query = query.replace("$__interval", "2s").replace("$environment", environment)
            return [
                Answer(
                    one.get("tags", {}), [(_seconds(row[0]), row[-1]) for row in one["values"] if row[-1] is not None]
                )
                for one in self.database.ask(query)
            ]
        query = target["expr"].replace("$__rate_interval", "15s")
        query = query.replace("${environment}", environment).replace("$environment", environment)
        found = (prometheus or self.prometheus).ask_range(query, self.start, time.time())
        return [Answer(one["metric"], [(when, float(value)) for when, value in one["values"]]) for one in found]


def _seconds(when: str) -> float:
    return datetime.fromisoformat(when).timestamp()


@contextmanager
def pipeline(folder: Path) -> Iterator[Pipeline]:
    """Start it all, in `folder`, and end it; every target has been scraped once."""
    site = Site(folder)
    site.install("acme-mailing", {"mailing": MAILING})
    with ExitStack() as stack:
        start = time.time()
        database = stack.enter_context(programs.influxdb(folder))
        services: dict[str, Served] = {}
        workers: dict[str, Popen[bytes]] = {}
        targets: dict[str, dict[str, list[str]]] = {"api": {}, "worker": {}}
        for name in ENVIRONMENTS:
            (folder / name).mkdir()
            services[name] = stack.enter_context(
                serve(folder / name, CTMS_WORKERS="2", PYTHONPATH=str(site.folder), CTMS_TOKEN_FAILURES_PER_MINUTE="5")
            )
            workers[name], address = stack.enter_context(worker(services[name]))
            targets["api"][name] = [services[name].url.removeprefix("http://")]
            targets["worker"][name] = [address]
        prometheus = stack.enter_context(programs.prometheus(folder, database, targets))
        up = until(prometheus.up, lambda up: len(up) == 4 and all(up.values()))
        assert sorted(up.values()) == [1, 1, 1, 1], up
        clients = {name: Client(served) for name, served in services.items()}
        for client in clients.values():
            client.authenticate()
        yield Pipeline(start, database, prometheus, services, workers, clients)
