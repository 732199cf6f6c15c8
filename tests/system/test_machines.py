"""The service on several machines, each of which dies once under load: nothing that was acknowledged is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.chaos.faulty_server import FaultyServer, plugin, run_faulty_server
from tests.installed import needs
from tests.serving import environment_for, run_flask
from tests.system.haproxy import HAProxy, haproxy
from tests.system.machines import Instance, Machine
from tests.system.pgbouncer import PgBouncer, pgbouncer, set_role
from tests.system.replication import Server, replicated, settings_for
from tests.system.retrying import RetryingLoad, Written, retrying_load
from tests.telemetry.scraped import total
from tests.waiting import until, wait_until

pytestmark = [needs("haproxy", "pgbouncer"), pytest.mark.long]

UNKNOWN = "/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c"
ROUTE = {"method": "GET", "path_template": "/ctms/{email_id}"}


@dataclass
class Deployment:
    """Three instances of the API, two workers, PgBouncer, a primary, its replica, and a backend."""

    primary: Server
    replica: Server
    pooler: PgBouncer
    instances: dict[str, Instance]
    workers: list[Machine]
    proxy: HAProxy
    backend: FaultyServer
    token: str


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Run all of it; the API connects through PgBouncer, the workers directly."""
    with ExitStack() as stack:
        primary, replica = stack.enter_context(replicated(tmp_path))
        pooler = stack.enter_context(pgbouncer(tmp_path, primary))
        set_role(primary)
        backend = stack.enter_context(run_faulty_server(0))
        direct = settings_for(primary, replica)
        shared = {"CTMS_DB_READ_URL": replica.url, "PYTHONPATH": str(plugin(tmp_path, backend.url, backend=True))}
        instances = {
            name: Instance(name, tmp_path, **{**direct, **shared, **pooler.settings, "CTMS_WORKERS": workers})
            for name, workers in (("api1", "2"), ("api2", "1"), ("api3", "1"))
        }
        workers = [Machine(f"worker{number}", tmp_path, "worker", **direct, **shared) for number in range(2)]
        for machine in (*instances.values(), *workers):
            stack.callback(machine.stop)
            machine.start()
        created = run_flask(
            *("ctms", "clients", "create", "id_test", "test@example.com", "--role", "admin"),
            environment=environment_for(tmp_path, **direct, **shared),
        )
        assert created.returncode == 0, created.stderr
        secret = next(word for word in created.stdout.split() if word.startswith("secret_"))
        for instance in instances.values():
            instance.wait()
        proxy = stack.enter_context(haproxy(tmp_path, {name: one.port for name, one in instances.items()}))
        answer = requests.post(f"{proxy.url}/token", auth=("id_test", secret), timeout=60)
        token = answer.json()["access_token"]
        yield Deployment(primary, replica, pooler, instances, workers, proxy, backend, token)


def test_each_machine_dies_once(deployment: Deployment) -> None:
    """Steps of one test, because to start it all takes most of its time."""
    metrics_are_summed(deployment)
    with retrying_load(deployment.proxy.url, deployment.token) as load:
        load.wait_for_more()
        an_instance_dies(deployment, load)
        a_worker_dies(deployment, load)
        the_pooler_dies(deployment, load)
        the_replica_dies(deployment, load)
        the_primary_dies(deployment, load)
    for machine in (*deployment.instances.values(), *deployment.workers):
        machine.check()
    check(deployment, load)


def metrics_are_summed(deployment: Deployment) -> None:
    """Counters of the instances add up to the requests; gauges of the database are the same in each."""
    instances = deployment.instances.values()
    before = [one.metrics() for one in instances]
    headers = {"Authorization": f"Bearer {deployment.token}"}
    for number in range(40):  # each on a connection of its own
        answer = requests.get(deployment.proxy.url + UNKNOWN, headers=headers if number % 4 else None, timeout=60)
        assert answer.status_code == (404 if number % 4 else 401)
    route = ("ctms_requests_total", {**ROUTE, "status_code": "404"})
    expected = [
        (*route, 30),
        ("ctms_requests_total", {**ROUTE, "status_code": "401"}, 10),
        ("ctms_requests_duration_seconds_count", {**ROUTE, "status_code_family": "4xx"}, 40),
        ("ctms_api_requests_total", {**ROUTE, "client_id": "id_test"}, 30),
        ("ctms_auth_failures_total", {"cause": "no_token"}, 10),
    ]

    def more(after: list[str], name: str, labels: dict[str, str]) -> list[float]:
        return [total(new, name, **labels) - total(old, name, **labels) for new, old in zip(after, before, strict=True)]

    def is_complete(after: list[str]) -> bool:
        return all(sum(more(after, name, labels)) >= number for name, labels, number in expected)

    # A scrape waits only briefly for the other processes of an instance.
    after = until(lambda: [one.metrics() for one in instances], is_complete)
    for name, labels, number in expected:
        assert sum(more(after, name, labels)) == number, (name, labels)
    assert sum(map(bool, more(after, *route))) > 1, "HAProxy used one instance only"
    sizes = [total(text, "ctms_database_connections_limit") for text in after]
    assert sizes[0] == 2 * sizes[1] == 2 * sizes[2]  # each has the limit of its own processes


def an_instance_dies(deployment: Deployment, load: RetryingLoad) -> None:
    """HAProxy sends the requests to the others, and to it again when it is back."""
    instance, proxy = deployment.instances["api1"], deployment.proxy
    instance.kill()
    wait_until(lambda: not proxy.is_up("api1"))
    load.wait_for_more()
    instance.start()
    wait_until(lambda: proxy.is_up("api1"))
    load.wait_for_more()


def a_worker_dies(deployment: Deployment, load: RetryingLoad) -> None:
    """It dies while it has lanes; its successor does not know of them."""
    calls = deployment.backend.calls
    wait_until(lambda: deployment.backend.calls > calls)
    worker = deployment.workers[0]
    worker.kill()
    load.wait_for_more()
    worker.start()


def the_pooler_dies(deployment: Deployment, load: RetryingLoad) -> None:
    """All connections of the API break."""
    deployment.pooler.kill()
    deployment.pooler.start()
    load.wait_for_more()


def the_replica_dies(deployment: Deployment, load: RetryingLoad) -> None:
    """Its reads go to the primary, until it is back."""
    deployment.replica.stop()
    load.wait_for_more()
    deployment.replica.start()
    deployment.replica.catch_up(deployment.primary)
    load.wait_for_more()


def the_primary_dies(deployment: Deployment, load: RetryingLoad) -> None:
    """The replica is promoted. Replication is synchronous: otherwise its last writes could be lost."""
    primary, replica = deployment.primary, deployment.replica
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    wait_until(lambda: primary.execute("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"))
    load.wait_for_more()
    primary.stop()
    replica.promote()
    deployment.pooler.point_to(replica)
    load.wait_for_more(4)


def check(deployment: Deployment, load: RetryingLoad) -> None:
    """Compare the database, the follower's copy and the backend's with what was acknowledged."""
    written = load.written()
    assert len(written.contacts) > 30
    assert written.deleted
    with psycopg.connect(deployment.replica.url, autocommit=True) as connection:
        check_database(connection, written)
        wait_until(lambda: connection.execute("SELECT NOT EXISTS (SELECT FROM outbox)").fetchone() == (True,))
    truth = {name: document(deployment, name) for name in written.contacts}

    assert load.follower.copy == truth
    assert set(load.follower.deleted) <= written.deleted
    assert {name: without_status(copy) for name, copy in deployment.backend.copies.items()} == truth


def check_database(connection: psycopg.Connection[Any], written: Written) -> None:
    """Check that everything that was acknowledged is there, once, and nothing else."""
    contacts = connection.execute("""
        SELECT email_id::text, first_name, ARRAY(
            SELECT name FROM newsletters n WHERE n.email_id = e.email_id AND subscribed)
        FROM emails e""")
    assert {name: (first, set(names)) for name, first, names in contacts} == written.contacts
    events = connection.execute(
        "SELECT email_id::text, name, action, count(*) FROM subscription_events GROUP BY 1, 2, 3"
    )
    expected = {(one, name, "subscribed", 1) for one, (_, names) in written.contacts.items() for name in names}
    assert set(events) == expected


def document(deployment: Deployment, email_id: str) -> Any:
    """Return a contact as the API has it."""
    headers = {"Authorization": f"Bearer {deployment.token}"}
    answer = requests.get(f"{deployment.proxy.url}/ctms/{email_id}", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return without_status(answer.json())


def without_status(contact: dict[str, Any]) -> dict[str, Any]:
    """Return what a contact has in a list, too."""
    return {name: value for name, value in contact.items() if name != "status"}
