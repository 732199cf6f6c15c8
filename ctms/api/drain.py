"""Draining request bodies: what a client still sends is read and dropped, so that it gets to read the answer.

A request is often refused before its body was read: the token is missing, the body is too large, the path is unknown.
The server then closes the connection, and a client that sends everything before it reads (`urllib`, many generated
clients) sees a broken pipe in place of the answer. So the answer is sent first, and the rest is read afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator, get_content_length

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_DRAIN_IN_BYTES = 64 * 1024 * 1024
"""The longest rest of a body that is read. The connection of a client that sends more is closed."""

MAX_DRAIN_SECONDS = 20
"""How long a client may take to send the rest: less than the service waits for requests in flight when it stops."""

_CHUNK_IN_BYTES = 64 * 1024


class BodyDrain:
    """A WSGI middleware that reads what the app left of a request's body, once the answer was sent."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app."""
        if not _has_body(environ):
            return self._app(environ, start_response)
        body = environ["wsgi.input"] = _Body(environ["wsgi.input"])
        length = get_content_length(environ)
        response = self._app(environ, start_response)
        if body.ended or (length is not None and length > MAX_DRAIN_IN_BYTES):
            return response
        # The server closes the iterator when all of it was sent.
        return ClosingIterator(response, lambda: _drain(body))


class _Body:
    """The body as the server hands it over (PEP 3333), which knows when it was read to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.ended = False
        self.readline = stream.readline
        self.readlines = stream.readlines

    def read(self, size: int = -1) -> bytes:
        """Read as the stream does."""
        data = self._stream.read() if size < 0 else self._stream.read(size)
        self.ended = self.ended or (not data and size != 0)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)


def _has_body(environ: WSGIEnvironment) -> bool:
    """Return whether a body may come whose end the server knows; of others a read might wait for ever."""
    sends = "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") not in {"", "0"}
    return sends and bool(environ.get("wsgi.input_terminated"))


def _drain(body: _Body) -> None:
    # A read has no time-out. When this one ends without its thread, the server closes the connection, which ends both.
    reader = threading.Thread(target=_read_rest, args=(body,), name="drain-body", daemon=True)
    reader.start()
    reader.join(MAX_DRAIN_SECONDS)


def _read_rest(body: _Body) -> None:
    left = MAX_DRAIN_IN_BYTES
    while left > 0:
        try:
            data = body.read(_CHUNK_IN_BYTES)
        except (OSError, ValueError):  # the client is gone, or what it sends is no body
            return
        if not data:
            return
        left -= len(data)
