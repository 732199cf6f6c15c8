"""A server that stores the events of the Sentry client."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Inbox:
    """The received envelopes as text; `dsn` is the address of the server."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.envelopes: list[str] = []

    def text(self) -> str:
        """Return all envelopes."""
        return "\n".join(self.envelopes)

    def events(self) -> list[dict[str, Any]]:
        """Return the received errors."""
        lines = [line for envelope in self.envelopes for line in envelope.splitlines()]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [item for item in found if "level" in item]

    def wait_for(self, number: int) -> list[dict[str, Any]]:
        """Wait for a number of errors; return all errors."""
        give_up = time.monotonic() + 200
        while len(self.events()) < number:
            assert time.monotonic() < give_up, self.text()
            time.sleep(0.05)
        return self.events()


@contextmanager
def inbox() -> Iterator[Inbox]:
    """Start the server on a local port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.envelopes.append((gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode())
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Inbox(f"http://key@127.0.0.1:{server.server_port}/1")
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield taken
        server.shutdown()
        thread.join()
