"""An HTTP server for tests, in place of another system: it records requests and can fail in many ways.

It keeps connections open as real servers do, which the servers of Werkzeug and pytest-httpserver do not.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, ClassVar, Self


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the server received."""

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body. Raises `ValueError` if it is not JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A response of the server. A `body` that is not bytes is sent as JSON.

    With `waits`, nothing is sent while the server runs. `sends` are raw bytes sent in place of a response, before the
    connection is closed.
    """

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = b""
    waits: bool = False
    sends: bytes | None = None


_TRUNCATED = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400\r\n\r\n{"message": "succ'


class StubServer:
    """A server that runs while it is used as a context manager, at `url`. `received` are the requests, oldest first.

    `reply` is its response, or a function that returns one for a request. `fails("500")` and the other `FAILURES` make
    it fail.
    """

    FAILURES: ClassVar[Mapping[str, Reply]] = {
        "slow": Reply(waits=True),
        "closed": Reply(sends=b""),
        "half closed": Reply(sends=_TRUNCATED),
        "no HTTP": Reply(sends=b"220 mail.example.com ESMTP\r\n"),
        "redirect": Reply(302, {"Location": "/elsewhere"}),
        "429": Reply(429, {"Retry-After": "7"}),
        "500": Reply(500, body=b"<h1>Internal Server Error</h1>"),
        "503": Reply(503),
    }

    def __init__(self) -> None:
        self.received: list[ReceivedRequest] = []
        self.reply: Reply | Callable[[ReceivedRequest], Reply] = Reply()
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def fails(self, how: str) -> None:
        """Fail from now on, in one of the `FAILURES`."""
        failure = self.FAILURES[how]
        self.reply = lambda request: Reply(200, body={}) if request.path == "/elsewhere" else failure

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that they are joined, and leave no open socket

    def __init__(self, stub: StubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stub = stub
        self.stopping = Event()
        self.connections: set[socket.socket] = set()

    def stop(self) -> None:
        """Stop, and shut down the connections that clients keep open."""
        self.shutdown()
        self.stopping.set()
        for connection in list(self.connections):
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Report nothing: some tests have clients that disconnect."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = ReceivedRequest(self.command, self.path, self.headers, body)
        self.server.stub.received.append(request)
        reply = self.server.stub.reply
        self._send(reply(request) if callable(reply) else reply)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _respond  # noqa: N815

    def _send(self, reply: Reply) -> None:
        if reply.waits:
            self.server.stopping.wait()
        if reply.waits or reply.sends is not None:
            self.wfile.write(reply.sends or b"")
            self.close_connection = True
            return
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if reply.status != 204:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
