"""A server in place of another system: it keeps contacts in memory and fails at a given rate."""

from __future__ import annotations

import json
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_PLUGIN = """
import json
import urllib.request

from ctms.plugins import Backend, DeletionHandler, hookimpl


class Chaos:
    def push(self, contacts, idempotency_key):
        self._send("push", [{"email_id": contact.email_id, "document": contact.document} for contact in contacts])

    def erase(self, identities):
        self._send("erase", identities)

    def _send(self, what, data):
        request = urllib.request.Request(f"URL/{what}", json.dumps(data).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10):
            pass


@hookimpl
def ctms_backends(settings):
    if BACKEND:
        yield Backend(name="chaos", implementation=Chaos(), concurrency=2, timeout=15)


@hookimpl
def ctms_deletion_handlers(settings):
    if HANDLER:
        yield DeletionHandler(name="chaos", implementation=Chaos(), max_batch=500, timeout=15)
"""


class FaultyServer(ThreadingHTTPServer):
    """A server on loopback. `copies` are the documents by id, `erased` the number of erasures of each identity, `gone`
    the contacts that were pushed as gone.
    """

    daemon_threads = True

    def __init__(self, failing: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.failing = failing
        self.copies: dict[str, Any] = {}
        self.erased: dict[str, int] = {}
        self.gone: set[str] = set()
        self.calls = 0
        self.failures = 0
        self.lock = threading.Lock()
        self.chance = random.Random(7)  # noqa: S311

    @property
    def url(self) -> str:
        """Return the base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that were killed."""

    def take(self, what: str, data: list[dict[str, Any]]) -> None:
        """Store what a call sent."""
        with self.lock:
            for one in data:
                if what == "erase":
                    self.erased[one["email_id"]] = self.erased.get(one["email_id"], 0) + 1
                elif one["document"] is None:
                    self.copies.pop(one["email_id"], None)
                    self.gone.add(one["email_id"])
                else:
                    self.copies[one["email_id"]] = one["document"]


class _Handler(BaseHTTPRequestHandler):
    server: FaultyServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        other = self.server
        with other.lock:
            other.calls += 1
            fails = other.chance.random() < other.failing
            other.failures += fails
            way = other.chance.randrange(4)
        if not fails or way in {2, 3}:  # some failures come after the work was done
            other.take(self.path.strip("/"), data)
        if fails and way in {1, 3}:  # reset the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(503 if fails else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def run_faulty_server(failing: float) -> Iterator[FaultyServer]:
    """Run a server that fails at a rate from 0 to 1."""
    server = FaultyServer(failing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def plugin(folder: Path, url: str, *, backend: bool = False, handler: bool = False) -> Path:
    """Write a distribution whose plugin calls the server, and return the folder for `PYTHONPATH`."""
    library = folder / "library"
    information = library / "chaos-1.dist-info"
    information.mkdir(parents=True)
    text = _PLUGIN.replace("URL", url).replace("BACKEND", str(backend)).replace("HANDLER", str(handler))
    (library / "chaos_plugin.py").write_text(text)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[ctms]\nchaos = chaos_plugin\n")
    return library
