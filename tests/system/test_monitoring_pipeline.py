"""From a request to a panel: two environments, scraped by a real Prometheus, kept in a real InfluxDB."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import requests

from tests.contacts.factories import minimal
from tests.hooks.distributions import Site
from tests.monitoring import programs
from tests.monitoring.definitions import panels
from tests.monitoring.programs import InfluxDB, Prometheus, until
from tests.serving import FLASK, Served, free_port, serve
from tests.system.test_restarts import both_workers

pytestmark = [
    pytest.mark.skipif(bool(programs.missing()), reason=f"not installed: {', '.join(programs.missing())}"),
    pytest.mark.timeout(300),
]

Key = tuple[str, str, str]
"""Method, path template, status."""

ENVIRONMENTS = ("production", "staging")
API = 'path_template!~"/__.*|/metrics"'

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
    """Calls a service and counts what it was answered; `broken` are requests that were not."""

    served: Served
    answered: Counter[Key] = field(default_factory=Counter)
    broken: Counter[tuple[str, str]] = field(default_factory=Counter)
    session: requests.Session = field(default_factory=requests.Session)

    def authenticate(self) -> None:
        """Get a token for the requests to come."""
        answer = self.call("POST", "/token", auth=(self.served.client_id, self.served.client_secret))
        assert answer is not None
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, template: str | None = None, **how: Any) -> requests.Response | None:
        """Send a request; returns the answer, if there is one."""
        named = template or path.partition("?")[0]
        try:
            answer = self.session.request(method, f"{self.served.url}{path}", timeout=30, **how)
        except requests.ConnectionError:
            self.broken[method, named] += 1
            return None
        self.answered[method, named, str(answer.status_code)] += 1
        return answer

    def some_of_everything(self, times: int) -> None:
        """Create contacts, read and change them, ask for what is not there, guess secrets."""
        for _ in range(times):
            created = self.call("POST", "/ctms", json=minimal())
            assert created is not None
            path = created.headers["Location"]
            self.call("GET", path, "/ctms/{email_id}")
            self.call("PATCH", path, "/ctms/{email_id}", json={"waitlists": [{"name": "vpn", "fields": {"geo": "fr"}}]})
            self.call("GET", f"/ctms?primary_email={created.json()['email']['primary_email']}")
            self.call("GET", f"{path[:-8]}00000000", "/ctms/{email_id}")
            self.call("GET", "/nowhere", "unmatched")
        for _ in range(80):
            self.call("POST", "/token", auth=("id_nobody", "secret"))


@contextmanager
def worker(served: Served, name: str) -> Iterator[tuple[Any, str]]:
    """Run the background service beside a service; gives its process and where it serves its metrics."""
    port = free_port()
    environment = {**served.environment, "CTMS_WORKER_METRICS_PORT": str(port)}
    url, output = f"http://127.0.0.1:{port}/metrics", served.folder / f"{name}.txt"
    with programs.running([FLASK, "ctms", "worker"], url, output, environment) as process:
        yield process, f"127.0.0.1:{port}"


def counted_by_prometheus(prometheus: Prometheus, environment: str) -> Counter[Key]:
    """Return the requests of an environment, all its instances and processes together."""
    query = (
        f'sum by (method, path_template, status_code) (ctms_requests_total{{environment="{environment}", {API}}}) > 0'
    )
    labels = [(one["metric"], one["value"][1]) for one in prometheus.ask(query)]
    return Counter({(m["method"], m["path_template"], m["status_code"]): int(float(n)) for m, n in labels})


def counted_by_influxdb(database: InfluxDB, environment: str) -> Counter[Key]:
    """Return the same from InfluxDB."""
    found: Counter[Key] = Counter()
    for series in database.ask(
        f'SELECT last("value") FROM "ctms_requests_total" WHERE "environment" = \'{environment}\' GROUP BY *'
    ):
        tags, value = series["tags"], int(series["values"][0][1])
        if value and not tags["path_template"].startswith("/__") and tags["path_template"] != "/metrics":
            found[tags["method"], tags["path_template"], tags["status_code"]] += value
    return found


def without_data(prometheus: Prometheus, database: InfluxDB | None, start: float) -> list[str]:
    """Return the panels, by environment, that show no number since `start`; without a database, of PromQL only."""
    empty = []
    for panel in panels():
        for environment in ENVIRONMENTS:
            for target in panel.targets:
                if "expr" in target:
                    query = target["expr"].replace("$__rate_interval", "15s")
                    query = query.replace("${environment}", environment).replace("$environment", environment)
                    found = [one["values"] for one in prometheus.ask_range(query, start, time.time())]
                    numbers = [float(value) for values in found for _, value in values]
                elif database is not None:
                    query = target["query"].replace("$timeFilter", f"time >= {int(start)}s AND time <= now()")
                    query = query.replace("$__interval", "2s").replace("$environment", environment)
                    found = [one["values"] for one in database.ask(query)]
                    numbers = [row[-1] for values in found for row in values if row[-1] is not None]
                else:
                    continue
                if not any(math.isfinite(number) for number in numbers):
                    empty.append(f"{panel} in {environment}: {query}")
    return empty


def test_what_happens_is_counted_kept_and_shown(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.install("acme-mailing", {"mailing": MAILING})
    with ExitStack() as stack:
        start = time.time()
        database = stack.enter_context(programs.influxdb(tmp_path))
        services: dict[str, Served] = {}
        workers: dict[str, tuple[Any, str]] = {}
        for name in ENVIRONMENTS:
            (tmp_path / name).mkdir()
            services[name] = stack.enter_context(
                serve(tmp_path / name, PYTHONPATH=str(site.folder), CTMS_TOKEN_FAILURES_PER_MINUTE="5")
            )
            workers[name] = stack.enter_context(worker(services[name], "worker"))
        targets = {
            "api": {name: [served.url.removeprefix("http://")] for name, served in services.items()},
            "worker": {name: [address] for name, (_, address) in workers.items()},
        }
        prometheus = stack.enter_context(programs.prometheus(tmp_path, database, targets))
        up = until(prometheus.up, lambda up: len(up) == 4 and all(up.values()))
        assert sorted(up.values()) == [1, 1, 1, 1], up

        clients = {name: Client(served) for name, served in services.items()}
        for name, client in clients.items():
            client.authenticate()
            client.some_of_everything(10 if name == "production" else 5)
        kill_a_process_under_way(clients["production"])

        for name, client in clients.items():
            counted = until(partial(counted_by_prometheus, prometheus, name), partial(agrees, client))
            assert differences(client, counted) == {}
            assert until(partial(counted_by_influxdb, database, name), counted.__eq__) == counted

        for client in clients.values():  # so that what began with the first round grows
            client.some_of_everything(3)
        assert until(lambda: without_data(prometheus, database, start), lambda empty: not empty) == []

        raised = prometheus.ask('ALERTS{alertname="CtmsTokenFailures", alertstate="firing"}')
        assert {(one["metric"]["environment"], one["metric"]["severity"]) for one in raised} == {
            (name, "ticket") for name in ENVIRONMENTS
        }

        workers["production"][0].kill()
        pending = 'ALERTS{alertname="CtmsWorkerDown", alertstate="pending"}'
        found = until(lambda: prometheus.ask(pending))
        assert [one["metric"]["environment"] for one in found] == ["production"]

        history = stack.enter_context(programs.reader(tmp_path, database))
        missing = [panel for panel in without_data(history, None, start) if "prometheus_remote" not in panel]
        assert missing == []


def kill_a_process_under_way(client: Client) -> None:
    """Kill one of two processes that serve while requests come in, and go on until there are two again."""
    victim = both_workers(client.served)[0]
    done = False

    def read() -> None:
        while not done:
            client.call("GET", "/identities?primary_email=nobody@example.com")

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    victim.kill()
    both_workers(client.served, without=victim)
    time.sleep(0.5)
    done = True
    for thread in threads:
        thread.join()
    assert client.answered["GET", "/identities", "200"] > 0


def agrees(client: Client, counted: Counter[Key]) -> bool:
    """True when nothing was counted wrongly."""
    return not differences(client, counted)


def differences(client: Client, counted: Counter[Key]) -> dict[Key, tuple[int, int]]:
    """Return what was counted wrongly: answered, counted. What was not answered may be counted or not."""
    wrong = {}
    for key in client.answered.keys() | counted.keys():
        answered, found = client.answered[key], counted[key]
        if not answered <= found <= answered + client.broken[key[0], key[1]]:
            wrong[key] = (answered, found)
    return wrong
