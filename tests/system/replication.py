"""PostgreSQL servers in streaming replication: a primary and its replica, on ports of the loopback interface."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from ctms.database.system_user import POSTGRES_PROGRAMS, place_programs, server_user
from ctms.testing.servers import let_server_enter
from tests.prepared import prepare
from tests.serving import FLASK, Served, environment_for, free_port
from tests.waiting import wait_until

TIMEOUT_IN_SECONDS = 120


@dataclass
class Server:
    """A PostgreSQL server."""

    data: Path
    port: int

    @property
    def url(self) -> str:
        """The URL of its database with the tables of CTMS."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c log_statement=all"
        self._pg_ctl("start", "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `immediate` is a crash."""
        self._pg_ctl("stop", "-m", mode)

    def promote(self) -> None:
        """Make the replica a primary."""
        self._pg_ctl("promote")

    def execute(self, statement: str, *values: Any) -> Any:
        """Run a statement; return the first value of its result, if it has one."""
        with psycopg.connect(self.url, autocommit=True, application_name="test") as connection:
            cursor = connection.execute(statement, values)
            row = cursor.fetchone() if cursor.description else None
        return None if row is None else row[0]

    def copy(self, data: Path) -> Server:
        """Return a replica of it, which is not started."""
        run("pg_basebackup", "--pgdata", str(data), "--write-recovery-conf", "--checkpoint=fast", "--dbname", self.url)
        return Server(data, free_port())

    def catch_up(self, primary: Server) -> None:
        """Wait until the replica has replayed everything that the primary has written."""
        position = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
        wait_until(lambda: self.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", position))

    def logged(self, text: str) -> int:
        """Return in how many lines of its log, which has all statements, a text is."""
        return sum(text in line for line in (self.data / "log").read_text().splitlines())

    def is_running(self) -> bool:
        """Return whether it has not been stopped."""
        return (self.data / "postmaster.pid").exists()

    def _pg_ctl(self, command: str, *options: str) -> None:
        run("pg_ctl", command, "-D", str(self.data), "-l", str(self.data / "log"), "-w", *options)


def run(program: str, *arguments: str) -> None:
    """Run a program of PostgreSQL as the user of the embedded server."""
    user = server_user()
    programs = POSTGRES_PROGRAMS if user is None else place_programs(POSTGRES_PROGRAMS, user)
    with tempfile.TemporaryFile("w+") as output:  # no pipe: the server that is started would hold it open
        command = [str(programs / program), *arguments]
        done = subprocess.run(
            command,
            check=False,
            user=user,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_IN_SECONDS,
            cwd="/",
        )
        output.seek(0)
        assert done.returncode == 0, output.read()


@contextmanager
def replicated(folder: Path) -> Iterator[tuple[Server, Server]]:
    """Run a primary with the tables of CTMS, and a replica that follows it."""
    prepare(folder, FLASK, environment_for(folder))
    place = Path(tempfile.mkdtemp(dir=folder))
    place.chmod(0o777)
    let_server_enter(place)
    primary = Server(folder / "postgresql", free_port())
    primary.start()
    servers = [primary]
    try:
        replica = primary.copy(place / "replica")
        servers.append(replica)
        replica.start()
        yield primary, replica
    finally:
        for server in servers:
            if server.is_running():
                server.stop()


def settings_for(*servers: Server) -> dict[str, str]:
    """Return the settings of a service whose database is on these servers, one of which is the primary."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return {
        "CTMS_DB_URL": f"postgresql://postgres@{hosts}/postgres",
        "CTMS_SECRET_KEY": "s" * 32,
        "CTMS_ERASURE_KEY": "e" * 32,
    }


def admin_of(running: Served) -> Served:
    """Return the service with the credentials of a new client."""
    created = running.flask("ctms", "clients", "create", "id_test", "test@example.com", "--role", "admin")
    assert created.returncode == 0, created.stderr
    secret = next(word for word in created.stdout.split() if word.startswith("secret_"))
    return replace(running, client_id="id_test", client_secret=secret)
