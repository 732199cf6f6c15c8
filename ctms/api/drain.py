"""Draining request bodies: what a client still sends is read and dropped, so that it gets to read the answer.

A request is often refused before its body was read: the token is missing, the body is too large, the path is unknown.
The server then closes the connection, and a client that sends everything before it reads (`urllib`, many generated
clients) sees a broken pipe in place of the answer. So the answer is sent first, and the rest is read afterwards.

A read waits for as long as the client keeps the connection open: WSGI has no time-out. Nor can another thread do it:
Granian drops the body when a request's thread returns, waits for the reader then, and holds Python's GIL meanwhile. So
only some of the threads may wait for clients that have not authenticated (`BodySlots`); the others go on answering.
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

MAX_DRAIN_IN_BYTES = 64 * 1024 * 1024
"""The longest rest of a body that is read. The connection of a client that sends more is closed."""

MAX_DRAIN_SECONDS = 20
"""How long a client that keeps sending is read: less than the service waits for requests in flight when it stops."""

MAX_SLOT_WAIT_SECONDS = 0.1
"""How long a request waits until it may read its body: about as long as a thread needs to check a secret."""

_CHUNK_IN_BYTES = 16 * 1024


class BodySlots:
    """The threads of a process that may wait, at once, for bodies of clients that have not authenticated."""

    def __init__(self, threads: int) -> None:
        waiting = threads - 1  # one goes on answering, whatever clients do
        self.forms = max(1, (waiting + 1) // 2)
        """Of requests for tokens."""
        self.drains = max(0, waiting - self.forms)
        """Of requests that were refused."""
        self._forms = threading.BoundedSemaphore(self.forms)
        self._drains = threading.Semaphore(self.drains)

    @contextmanager
    def form(self) -> Iterator[None]:
        """Hold a slot to read a form. Raises `Unavailable` if none becomes free in time."""
        if not self._forms.acquire(timeout=MAX_SLOT_WAIT_SECONDS):
            raise Unavailable("too many clients have not finished sending their requests")
        try:
            yield
        finally:
            self._forms.release()

    def drain(self, body: _Body) -> None:
        """Read the rest of a body, unless no slot becomes free in time: then the server closes the connection."""
        if not self.drains or not self._drains.acquire(timeout=MAX_SLOT_WAIT_SECONDS):
            return
        try:
            _read_rest(body)
        finally:
            self._drains.release()


def init_body_slots(app: Flask, settings: Settings) -> BodySlots:
    """Give the app its slots."""
    slots = BodySlots(settings.threads)
    app.extensions["ctms.body_slots"] = slots
    return slots


def body_slots() -> BodySlots:
    """Return the slots of the current app."""
    found: BodySlots = extension("ctms.body_slots")
    return found


class BodyDrain:
    """A WSGI middleware that reads what the app left of a request's body, once the answer was sent."""

    def __init__(self, app: WSGIApplication, slots: BodySlots) -> None:
        self._app = app
        self._slots = slots

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the app."""
        if not has_body(environ):
            return self._app(environ, start_response)
        body = environ["wsgi.input"] = _Body(environ["wsgi.input"])
        length = get_content_length(environ)
        response = self._app(environ, start_response)
        if body.ended or (length is not None and length > MAX_DRAIN_IN_BYTES):
            return response
        # The server closes the iterator when all of it was sent.
        return ClosingIterator(response, lambda: self._slots.drain(body))


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


def has_body(environ: WSGIEnvironment) -> bool:
    """Return whether a body may come whose end the server knows; of others a read might wait for ever."""
    sends = "HTTP_TRANSFER_ENCODING" in environ or environ.get("CONTENT_LENGTH", "0") not in {"", "0"}
    return sends and bool(environ.get("wsgi.input_terminated"))


def _read_rest(body: _Body) -> None:
    left = MAX_DRAIN_IN_BYTES
    give_up = time.monotonic() + MAX_DRAIN_SECONDS
    while left > 0 and time.monotonic() < give_up:
        try:
            data = body.read(_CHUNK_IN_BYTES)
        except (OSError, ValueError):  # the client is gone, or what it sends is no body
            return
        if not data:
            return
        left -= len(data)
