"""HAProxy with the configuration of `deploy/haproxy`, on ports and in a folder of a test."""

from __future__ import annotations

import csv
import io
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.monitoring.programs import put, running
from tests.serving import free_port
from tests.testing.environments import ROOT
from tests.waiting import until

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"


@dataclass
class HAProxy:
    """A running HAProxy."""

    url: str
    control: Path
    ports: Mapping[str, int]

    def command(self, text: str) -> str:
        """Send a command to the control socket, as `socat` does; return the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.control))
            connection.sendall(f"{text}\n".encode())
            with connection.makefile() as answer:
                return answer.read()

    def statistics(self, server: str) -> dict[str, str]:
        """Return the statistics of a server."""
        rows = csv.DictReader(io.StringIO(self.command("show stat").removeprefix("# ")))
        (found,) = [row for row in rows if (row["pxname"], row["svname"]) == ("ctms", server)]
        return found

    def is_up(self, server: str) -> bool:
        """Return whether the health check of a server passes and it gets requests."""
        return self.statistics(server)["status"] == "UP"

    def drain(self, server: str) -> None:
        """Send no more requests to a server, and wait until the last one is answered."""
        self._set_state(server, "drain")
        left = until(lambda: self.statistics(server)["scur"], "0".__eq__)
        assert left == "0", f"{server} has {left} requests"

    def ready(self, server: str) -> None:
        """Send requests to a server again, as soon as its health check passes."""
        self._set_state(server, "ready")

    def _set_state(self, server: str, state: str) -> None:
        answer = self.command(f"set server ctms/{server} state {state}")
        assert not answer.strip(), answer


@contextmanager
def haproxy(folder: Path, ports: Mapping[str, int]) -> Iterator[HAProxy]:
    """Run HAProxy in front of these servers, of which one must be running, on these ports."""
    port, control = free_port(), folder / "ha.sock"
    text = put(CONFIGURATION.read_text(), "127.0.0.1:8080", f"127.0.0.1:{port}")
    text = put(text, "/run/haproxy/ctms.sock", str(control))
    # Without it a check has one second, which a server on a busy machine may exceed.
    text = put(text, "    timeout server 60s\n", "    timeout server 60s\n    timeout check 30s\n")
    servers = "".join(f"    server {name} 127.0.0.1:{one}\n" for name, one in ports.items())
    text, replaced = re.subn(r"(?:    server \w+ 127\.0\.0\.1:\d+\n)+", servers, text)
    assert replaced == 1, text
    configuration = folder / "haproxy.cfg"
    configuration.write_text(text)
    url = f"http://127.0.0.1:{port}"
    with running(["haproxy", "-db", "-f", str(configuration)], f"{url}/__lbheartbeat__", folder / "haproxy.txt"):
        yield HAProxy(url, control, ports)
