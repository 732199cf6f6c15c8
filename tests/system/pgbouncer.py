"""PgBouncer with the configuration of `deploy/base`, on a port and in a folder of a test."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctms.database.system_user import server_user
from ctms.testing.servers import let_server_enter
from tests.monitoring.programs import put
from tests.serving import STOP_TIMEOUT_IN_SECONDS, free_port
from tests.system.replication import Server
from tests.testing.environments import ROOT
from tests.waiting import wait_until

CONFIGURATION = ROOT / "deploy" / "base" / "pgbouncer.ini"
ROLE_SETTINGS = ROOT / "deploy" / "postgresql" / "role.sql"


TRANSACTION = "transaction"
SESSION = "session"


def prepares_in_transactions() -> bool:
    """Return whether the installed version can prepare statements in transaction mode: from 1.21 on."""
    text = subprocess.run(["pgbouncer", "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", text)
    assert found is not None, text
    return (int(found[1]), int(found[2])) >= (1, 21)


@dataclass
class PgBouncer:
    """PgBouncer, and the settings of a service that connects through it."""

    folder: Path
    port: int
    settings: dict[str, str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        output = self.folder / "output.txt"
        command = ["pgbouncer", str(self.folder / "pgbouncer.ini")]
        with output.open("a") as file:
            process = subprocess.Popen(command, user=server_user(), stdout=file, stderr=subprocess.STDOUT, cwd="/")
        self.process = process
        wait_until(lambda: process.poll() is not None or _listens(self.port))
        assert process.poll() is None, output.read_text()

    def kill(self) -> None:
        """Kill it, with all its connections."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT_IN_SECONDS)

    def point_to(self, server: Server) -> None:
        """Send new connections to another server, as a switch-over does."""
        (self.folder / "databases.ini").write_text(f"postgres = host=127.0.0.1 port={server.port} dbname=postgres\n")
        if self.process is not None:
            self.process.send_signal(signal.SIGHUP)


def set_role(server: Server) -> None:
    """Give the role the settings that PgBouncer does not pass on."""
    for statement in re.findall(r"^ALTER ROLE .*;$", ROLE_SETTINGS.read_text(), re.MULTILINE):
        server.execute(statement.replace("ALTER ROLE ctms", "ALTER ROLE postgres"))


@contextmanager
def pgbouncer(folder: Path, server: Server, pool_mode: str = TRANSACTION) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of a server."""
    place = Path(tempfile.mkdtemp(dir=folder))
    place.chmod(0o755)
    let_server_enter(place)
    port = free_port()
    text = put(CONFIGURATION.read_text(), "/run/secrets/pgbouncer", str(place))
    text = text.replace("listen_addr = *", "listen_addr = 127.0.0.1")
    text = put(put(text, "listen_port = 6432", f"listen_port = {port}"), "scram-sha-256", "trust")
    text = put(text, "pool_mode = transaction", f"pool_mode = {pool_mode}")
    settings = {}
    if not prepares_in_transactions():
        text = put(text, "max_prepared_statements = 200", "")
        settings = {"CTMS_DB_PREPARED_STATEMENTS": "no"} if pool_mode == TRANSACTION else {}
    (place / "pgbouncer.ini").write_text(text)
    (place / "users.txt").write_text('"postgres" ""\n')
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres?target_session_attrs=read-write"
    proxy = PgBouncer(place, port, {"CTMS_DB_URL": url, **settings})
    proxy.point_to(server)
    try:
        proxy.start()
        yield proxy
    finally:
        proxy.kill()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
