"""Draining of request bodies: the rest of a body is read and discarded, so that the client can read the response.

A request is often refused before its body is read: the token is missing, the body is too large, the path is unknown.
The server then closes the connection. A client that sends everything before it reads (`urllib`, many generated clients)
gets a broken pipe instead of the response. So the response is sent first, and the rest of the body is read afterwards.

A read blocks for as long as the client keeps the connection open, since WSGI has no timeout. Another thread cannot
read either: Granian drops the body when the request's thread returns, and waits for the reader with Python's GIL held.
So `BodySlots` limits the threads that may wait for unauthenticated clients; the others keep serving requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from flask import Flask
from werkzeug.wsgi import ClosingIterator, get_content_length

from ctms.current import extension
from ctms.errors import Unavailable
from ctms.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_DRAIN_BYTES = 64 * 1024 * 1024
"""Bytes of a body that are drained at most. The connection of a client that sends more is closed."""

MAX_DRAIN_SECONDS = 20
"""Limit on draining a body, below the time that a stopping service waits for requests in flight."""

MAX_SLOT_WAIT_SECONDS = 0.1
"""Limit on the wait for a slot, about the time that a thread takes to verify a secret."""

_CHUNK_BYTES = 16 * 1024


class BodySlots:
    """Slots that limit how many threads of a process wait at once for bodies of unauthenticated clients."""

    def __init__(self, threads: int) -> None:
        waiting = threads - 1  # one thread always keeps serving requests
        self.forms = max(1, (waiting + 1) // 2)
        """The number of slots for token requests."""
        self.drains = max(0, waiting - self.forms)
        """The number of slots for refused requests."""
        self._forms = threading.BoundedSemaphore(self.forms)
        self._drains = threading.Semaphore(self.drains)

    @contextmanager
    def form(self) -> Iterator[None]:
        """Hold a slot for reading a form. Raises `Unavailable` if none becomes free in time."""
        if not self._forms.acquire(timeout=MAX_SLOT_WAIT_SECONDS):
            raise Unavailable("too many clients have not finished sending their requests")
        try:
            yield
        finally:
            self._forms.release()

    def drain(self, body: _Body) -> None:
        """Drain a body. If no slot becomes free in time, do nothing, and the server closes the connection."""
        if not self.drains or not self._drains.acquire(timeout=MAX_SLOT_WAIT_SECONDS):
            return
        try:
            _read_rest(body)
        finally:
            self._drains.release()


def init_body_slots(app: Flask, settings: Settings) -> BodySlots:
    """Create the app's slots."""
    slots = BodySlots(settings.threads)
    app.extensions["ctms.body_slots"] = slots
    return slots


def body_slots() -> BodySlots:
    """Return the slots of the current app."""
    found: BodySlots = extension("ctms.body_slots")
    return found


class BodyDrain:
    """A WSGI middleware that drains the rest of a request's body after the response is sent."""

    def __init__(self, app: WSGIApplication, slots: BodySlots) -> None:
        self._app = app
        self._slots = slots

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app, and drain the body when the server closes the response."""
        if not has_body(environ):
            return self._app(environ, start_response)
        body = environ["wsgi.input"] = _Body(environ["wsgi.input"])
        length = get_content_length(environ)
        response = self._app(environ, start_response)
        if body.ended or (length is not None and length > MAX_DRAIN_BYTES):
            return response
        # The server closes the iterator after the response is sent.
        return ClosingIterator(response, lambda: self._slots.drain(body))


class _Body:
    """The server's input stream (PEP 3333), which records when it has been read to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.ended = False
        self.readline = stream.readline
        self.readlines = stream.readlines

    def read(self, size: int = -1) -> bytes:
        """Read from the stream, and record its end."""
        data = self._stream.read() if size < 0 else self._stream.read(size)
        self.ended = self.ended or (not data and size != 0)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)


def has_body(environ: WSGIEnvironment) -> bool:
    """Return whether the request has a body whose end the server detects; another could block indefinitely."""
    sends = "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") not in {"", "0"}
    return sends and bool(environ.get("wsgi.input_terminated"))


def _read_rest(body: _Body) -> None:
    left = MAX_DRAIN_BYTES
    give_up = time.monotonic() + MAX_DRAIN_SECONDS
    while left > 0 and time.monotonic() < give_up:
        try:
            data = body.read(_CHUNK_BYTES)
        except (OSError, ValueError):  # the client has disconnected, or its body is malformed
            return
        if not data:
            return
        left -= len(data)
