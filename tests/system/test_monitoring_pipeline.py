"""From a request to a panel: events are counted exactly, stored, and displayed."""

from __future__ import annotations

import math
import time
from collections import Counter
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
import requests

from tests.monitoring import programs
from tests.monitoring.definitions import alerts, panels
from tests.monitoring.pipeline import ENVIRONMENTS, Client, Key, Pipeline, pipeline
from tests.monitoring.programs import InfluxDB, Prometheus
from tests.serving import free_port
from tests.system.test_restarts import both_workers
from tests.waiting import until

pytestmark = [
    pytest.mark.long,
    programs.needs_programs,
    pytest.mark.timeout(300),
]

API = 'path_template!~"/__.*|/metrics"'


def test_events_are_counted_stored_and_displayed(tmp_path: Path) -> None:
    with pipeline(tmp_path) as running:
        for name, client in running.clients.items():
            client.some_of_everything(10 if name == "production" else 5)
        lost = {"production": kill_a_process_under_way(running.clients["production"])}

        for name, client in running.clients.items():
            check = partial(agrees, client, lost.get(name, Counter()))
            counted = until(partial(counted_by_prometheus, running.prometheus, name), check)
            assert differences(client, lost.get(name, Counter()), counted) == {}
            assert until(partial(counted_by_influxdb, running.database, name), counted.__eq__) == counted

        for client in running.clients.values():  # so that series of the first round grow
            client.some_of_everything(3)
        assert until(lambda: without_data(running), lambda empty: not empty) == []

        raised = running.prometheus.ask('ALERTS{alertname="CtmsTokenFailures", alertstate="firing"}')
        assert {(one["metric"]["environment"], one["metric"]["severity"]) for one in raised} == {
            (name, "ticket") for name in ENVIRONMENTS
        }

        running.workers["production"].kill()
        found = until(lambda: running.prometheus.ask('ALERTS{alertname="CtmsWorkerDown", alertstate="pending"}'))
        assert [one["metric"]["environment"] for one in found] == ["production"]

        with programs.reader(tmp_path, running.database) as history:
            # Of Prometheus itself InfluxDB keeps nothing.
            assert [panel for panel in without_data(running, history) if "prometheus_remote" not in panel] == []


def test_alerts_are_sent_and_need_no_influxdb(tmp_path: Path) -> None:
    gone = {"api": {name: [f"127.0.0.1:{free_port()}"] for name in ENVIRONMENTS}, "worker": {}}
    expected = {
        ("CtmsInstanceDown", "production", "page"),
        ("CtmsInstanceDown", "staging", "ticket"),  # staging pages nobody
        ("CtmsWorkerNotScraped", "production", "page"),
        ("CtmsWorkerNotScraped", "staging", "ticket"),
        ("CtmsMetricsNotStored", None, "ticket"),
    }
    nobody = InfluxDB(f"127.0.0.1:{free_port()}")
    with (
        programs.alertmanager() as (address, came),
        programs.prometheus(tmp_path, nobody, gone, address) as prometheus,
    ):
        sent = until(
            lambda: {(one["alertname"], one.get("environment"), one["severity"]) for one in came}, expected.__le__
        )
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    assert expected <= sent
    assert {(rule["name"], rule["health"]) for rule in rules} == {(alert.name, "ok") for alert in alerts()}


def without_data(running: Pipeline, prometheus: Prometheus | None = None) -> list[str]:
    """Return the panels, by environment, that show no number."""
    empty = []
    for panel in panels():
        for environment in ENVIRONMENTS:
            for target in panel.targets:
                found = running.ask(target, environment, prometheus)
                if not any(math.isfinite(value) for one in found for _, value in one.points):
                    empty.append(f"{panel} in {environment}: {target.get('expr') or target['query']}")
    return empty


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


def kill_a_process_under_way(client: Client) -> Counter[Key]:
    """Kill one of two server processes under load, and continue until two run again; return what it may have lost.

    These are the requests that it may have answered since the last flush.
    """
    victim = both_workers(client.served)[0]
    done = False

    def read() -> None:
        while not done:
            client.call("GET", "/identities?primary_email=nobody@example.com")

    threads = [Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    with client.lock:
        flushed = client.answered.copy()
    requests.get(f"{client.served.url}/metrics", timeout=60).raise_for_status()  # waits until both have flushed
    victim.kill()
    victim.wait(timeout=60)
    lost = client.answered - flushed
    lost["GET", "/identities", "200"] += len(threads)  # responses that the threads have not counted yet
    both_workers(client.served, without=victim)
    time.sleep(0.5)
    done = True
    for thread in threads:
        thread.join()
    assert client.answered["GET", "/identities", "200"] > 0
    return lost


def agrees(client: Client, lost: Counter[Key], counted: Counter[Key]) -> bool:
    """Return whether all counts are right."""
    return not differences(client, lost, counted)


def differences(client: Client, lost: Counter[Key], counted: Counter[Key]) -> dict[Key, tuple[int, int]]:
    """Return the wrong counts: answered, counted. Requests that failed or may be lost are counted or not."""
    wrong = {}
    for key in client.answered.keys() | counted.keys():
        answered, found = client.answered[key], counted[key]
        if not answered - lost[key] <= found <= answered + client.broken[key[0], key[1]]:
            wrong[key] = (answered, found)
    return wrong
