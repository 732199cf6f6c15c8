"""A roll-out behind HAProxy under load, as `docs/how-to/upgrade.md` describes it; one that breaks; and the way back."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from ctms.database.migrations import head
from ctms.database.pool import libpq_url
from tests.conftest import SECRET_KEY, empty_database
from tests.docs.messages import is_documented
from tests.installed import needs
from tests.serving import STOP_TIMEOUT_IN_SECONDS, end, free_port, wait_for_checks, wait_until_announced
from tests.system.haproxy import HAProxy, haproxy
from tests.system.load import Load, load
from tests.system.versions import COLUMN, REVISION, NewerVersions, install_older
from tests.testing.environments import Environment
from tests.waiting import until

pytestmark = [pytest.mark.long, needs("haproxy")]


class Instance:
    """A machine's service: commands and servers of both versions on one database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self.older, self.older_version = install_older(folder)
        self.newer = NewerVersions(folder)
        self.ports = {"blue": free_port(), "green": free_port()}

    def variables(self, environment: Environment, **more: str) -> dict[str, str]:
        settings = {"CTMS_DB_URL": self.database, "CTMS_SECRET_KEY": SECRET_KEY, "CTMS_ERASURE_KEY": "k" * 32}
        return {**environment.variables(self.folder), "FLASK_APP": "wsgi", "CTMS_WORKERS": "1", **settings, **more}

    def flask(self, environment: Environment, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command of a version."""
        variables = self.variables(environment)
        return environment.run("flask", *arguments, variables=variables, folder=self.folder, status=status)

    @contextmanager
    def serve(self, environment: Environment, server: str) -> Iterator[subprocess.Popen[str]]:
        """Run a version as one of HAProxy's servers."""
        variables = self.variables(environment, PORT=str(self.ports[server]))
        output = self.folder / f"{server}.txt"
        with output.open("w") as file:
            process = subprocess.Popen(
                [environment.commands / "flask", "ctms", "serve"],
                env=variables,
                cwd=self.folder,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            wait_until_announced(process, output)
            yield process
        finally:
            end(process)

    def output(self, server: str) -> str:
        return (self.folder / f"{server}.txt").read_text()

    def query(self, sql: str) -> list[Any]:
        with psycopg.connect(libpq_url(self.database)) as connection:
            return connection.execute(sql.encode()).fetchall()

    def check(self, url: str, version: str, migrations: str = "ok") -> None:
        """Check the endpoints for operators and load balancers, of one server or behind HAProxy."""
        wait_for_checks(url, database="ok", migrations=migrations)
        assert requests.get(f"{url}/__lbheartbeat__", timeout=60).json() == {"status": "ok"}
        for _ in range(4):
            assert requests.get(f"{url}/__version__", timeout=60).json()["version"] == version

    def url(self, server: str) -> str:
        return f"http://127.0.0.1:{self.ports[server]}"


@pytest.fixture
def instance(tmp_path: Path, postgres: str, worker_id: str) -> Instance:
    """The older version's tables, and an API client's role."""
    return Instance(tmp_path, empty_database(postgres, f"roll_out_{worker_id}"))


def test_a_roll_out_and_the_way_back(instance: Instance) -> None:
    instance.flask(instance.older, "db", "upgrade")
    created = instance.flask(instance.older, "ctms", "clients", "create", "id_load", "a@example.com", "--role", "admin")
    secret = re.search(r"secret_\S+", created.stdout)
    assert secret is not None
    with ExitStack() as servers:
        old = servers.enter_context(instance.serve(instance.older, "blue"))
        proxy = servers.enter_context(haproxy(instance.folder, instance.ports))
        token = requests.post(f"{proxy.url}/token", auth=("id_load", secret[0]), timeout=60).json()["access_token"]
        with load(proxy.url, token) as running:  # which ends before the servers
            running.wait_for_more()
            instance.check(proxy.url, instance.older_version)

            a_migration_breaks(instance, proxy, running)
            newer_version = migrate(instance, proxy, running)

            new = servers.enter_context(instance.serve(instance.newer.environment, "green"))
            hand_over(instance, proxy, running, "green", version=newer_version)
            stop(old)
            running.wait_for_more()
            instance.check(proxy.url, newer_version)

            done = instance.flask(instance.older, "db", "upgrade")  # as the next roll-out does
            assert "CTMS: nothing to do: the tables are those of a newer version" in done.stdout
            servers.enter_context(instance.serve(instance.older, "blue"))
            assert f"revision {REVISION} of a newer version, and compatible with this one" in instance.output("blue")
            hand_over(instance, proxy, running, "blue", version=instance.older_version, migrations="warning")
            stop(new)
            running.wait_for_more()
            instance.check(proxy.url, instance.older_version, "warning")
            assert has_column(instance)
        running.check()
    for client in running.clients:
        written = instance.query(f"SELECT first_name FROM emails WHERE email_id = '{client.email_id}'")
        assert written == [(str(client.rounds - 1),)]


def a_migration_breaks(instance: Instance, proxy: HAProxy, running: Load) -> None:
    """The last migration of the first newer version breaks: the roll-out ends, and the older version serves on."""
    instance.newer.install(breaks=True)
    older = instance.query("SELECT version_num FROM alembic_version")

    stopped = instance.flask(instance.newer.environment, "db", "upgrade", status=1)
    refused = instance.flask(instance.newer.environment, "ctms", "serve", status=1)

    for done, message in (
        (stopped, "a migration failed with DivisionByZero"),
        (refused, "run `flask db upgrade` first"),
    ):
        (line,) = [line for line in done.stderr.splitlines() if message in line]
        assert is_documented(line)
    assert instance.query("SELECT version_num FROM alembic_version") == [(head(),)]  # each migration is a transaction
    assert not has_column(instance)
    running.wait_for_more()
    instance.check(proxy.url, instance.older_version, migrations="ok" if older == [(head(),)] else "warning")


def migrate(instance: Instance, proxy: HAProxy, running: Load) -> str:
    """Migrate with the next newer version, while the older one serves; return the newer version."""
    version = instance.newer.install(breaks=False)

    done = instance.flask(instance.newer.environment, "db", "upgrade")

    assert f"CTMS: upgraded to {REVISION}" in done.stdout
    assert has_column(instance)
    running.wait_for_more()
    instance.check(proxy.url, instance.older_version, "warning")
    return version


def hand_over(
    instance: Instance,
    proxy: HAProxy,
    running: Load,
    coming: str,
    *,
    version: str,
    migrations: str = "ok",
) -> None:
    """Let HAProxy send requests to the server that has just started, and no more to the other one."""
    before = int(proxy.statistics(coming)["stot"])
    instance.check(instance.url(coming), version, migrations)
    proxy.ready(coming)
    assert until(lambda: proxy.is_up(coming))
    running.wait_for_more()
    assert int(proxy.statistics(coming)["stot"]) > before
    proxy.drain("blue" if coming == "green" else "green")


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    assert process.wait(timeout=STOP_TIMEOUT_IN_SECONDS) == 0


def has_column(instance: Instance) -> bool:
    sql = f"SELECT FROM information_schema.columns WHERE table_name = 'emails' AND column_name = '{COLUMN}'"
    return bool(instance.query(sql))
