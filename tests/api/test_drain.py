"""A body is drained after the response, within limits. `tests/system/test_refused_bodies.py` tests it over HTTP."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from typing import Any

import pytest

from ctms.api import drain
from ctms.api.drain import BodyDrain, BodySlots
from ctms.errors import Unavailable


class Endless(io.RawIOBase):
    """An endless body; `taken` is the number of bytes read, `largest` the longest read."""

    taken = 0
    largest = 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "all at once"
        self.taken += size
        self.largest = max(self.largest, size)
        return bytes(size)


def respond(stream: Any, *, read: int = 0, slots: Any = None, **environ: Any) -> None:
    """Handle a request with this body, of which the app reads a part, and send the response as a WSGI server does."""

    def app(environ: Any, _start: Any) -> Iterable[bytes]:
        if read:
            environ["wsgi.input"].read(read)
        return [b"refused"]

    given = {"wsgi.input": stream, "wsgi.input_terminated": True, **environ}
    response = BodyDrain(app, slots or BodySlots(4))(given, lambda *_: None)  # type: ignore[arg-type]
    assert b"".join(response) == b"refused"
    getattr(response, "close", lambda: None)()


@pytest.mark.parametrize("headers", [{"CONTENT_LENGTH": "3000000"}, {"HTTP_TRANSFER_ENCODING": "chunked"}])
@pytest.mark.parametrize("read", [0, 1000, 3_000_000])
def test_the_rest_is_read(headers: dict[str, str], read: int) -> None:
    body = io.BytesIO(bytes(3_000_000))

    respond(body, read=read, **headers)

    assert body.tell() == 3_000_000


def test_the_answer_is_sent_first() -> None:
    body = io.BytesIO(bytes(3_000_000))
    given = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": "3000000"}
    response: Any = BodyDrain(lambda *_: [b"refused"], BodySlots(4))(given, lambda *_: None)  # type: ignore[arg-type]

    assert list(response) == [b"refused"]
    assert body.tell() == 0
    response.close()
    assert body.tell() == 3_000_000


def test_a_body_without_end_is_read_up_to_the_limit_in_small_pieces() -> None:
    body = Endless()

    respond(body, HTTP_TRANSFER_ENCODING="chunked")

    assert body.taken == drain.MAX_DRAIN_BYTES == 64 * 1024 * 1024
    assert body.largest <= 64 * 1024


def test_a_body_that_is_too_long_anyway_is_not_read() -> None:
    body = Endless()

    respond(body, CONTENT_LENGTH=str(drain.MAX_DRAIN_BYTES + 1))

    assert body.taken == 0


@pytest.mark.parametrize(
    "environ",
    [{}, {"CONTENT_LENGTH": "0"}, {"CONTENT_LENGTH": ""}, {"CONTENT_LENGTH": "10", "wsgi.input_terminated": False}],
)
def test_without_a_body_or_a_server_that_knows_its_end_nothing_is_read(environ: dict[str, Any]) -> None:
    body = Endless()

    respond(body, **environ)

    assert body.taken == 0


def test_a_slow_client_occupies_a_thread_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain, "MAX_DRAIN_SECONDS", 1)

    class Slow(Endless):
        def read(self, size: int = -1) -> bytes:
            time.sleep(0.01)
            return super().read(size)

    body = Slow()
    respond(body, CONTENT_LENGTH=str(drain.MAX_DRAIN_BYTES))

    assert 0 < body.taken < drain.MAX_DRAIN_BYTES


class Stalled(io.RawIOBase):
    """The body of a client that stops sending until it disconnects."""

    def __init__(self) -> None:
        self.reads = threading.Event()
        self.gone = threading.Event()

    def read(self, _size: int = -1) -> bytes:
        self.reads.set()
        self.gone.wait(60)
        raise OSError


def test_clients_that_stop_sending_hold_some_threads_only() -> None:
    """Bodies beyond the slots are not drained; a client that disconnects frees its slot."""
    slots = BodySlots(5)
    assert slots.drains == 2
    stalled = [Stalled() for _ in range(slots.drains)]
    threads = [
        threading.Thread(target=respond, args=(body,), kwargs={"slots": slots, "CONTENT_LENGTH": "10"})
        for body in stalled
    ]
    for thread in threads:
        thread.start()
    assert all(body.reads.wait(30) for body in stalled)

    beyond = io.BytesIO(bytes(10))
    respond(beyond, slots=slots, CONTENT_LENGTH="10")
    assert beyond.tell() == 0

    stalled[0].gone.set()
    threads[0].join(30)
    respond(beyond, slots=slots, CONTENT_LENGTH="10")
    assert beyond.tell() == 10

    stalled[1].gone.set()
    threads[1].join(30)


def test_forms_beyond_the_slots_are_refused() -> None:
    slots = BodySlots(2)

    with slots.form(), pytest.raises(Unavailable), slots.form():
        pytest.fail("a second one waits for its client")
    with pytest.raises(KeyError), slots.form():
        raise KeyError
    with slots.form():
        pass


@pytest.mark.parametrize("threads", range(2, 40))
def test_one_thread_at_least_waits_for_no_client(threads: int) -> None:
    slots = BodySlots(threads)

    assert slots.forms >= 1
    assert slots.forms + slots.drains == threads - 1


def test_a_single_thread_reads_forms_and_drains_nothing() -> None:
    body = io.BytesIO(bytes(10))
    slots = BodySlots(1)

    with slots.form():
        respond(body, slots=slots, CONTENT_LENGTH="10")

    assert body.tell() == 0


def test_a_body_that_was_read_costs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def app(environ: Any, _start: Any) -> Iterable[bytes]:
        while environ["wsgi.input"].read(1000):
            pass
        return [b"ok"]

    monkeypatch.setattr(BodySlots, "drain", lambda *_: pytest.fail("there is nothing left"))
    given = {"wsgi.input": io.BytesIO(bytes(2500)), "wsgi.input_terminated": True, "CONTENT_LENGTH": "2500"}

    response = BodyDrain(app, BodySlots(4))(given, lambda *_: None)  # type: ignore[arg-type]

    assert response == [b"ok"]


def test_the_body_can_be_read_line_by_line() -> None:
    found = []

    def app(environ: Any, _start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        found.extend([body.readline(), body.readlines(1), list(body), body.read()])
        return [b""]

    given = {"wsgi.input": io.BytesIO(b"a\nb\nc\nd\n"), "wsgi.input_terminated": True, "CONTENT_LENGTH": "8"}
    BodyDrain(app, BodySlots(4))(given, lambda *_: None)  # type: ignore[arg-type]

    assert found == [b"a\n", [b"b\n"], [b"c\n", b"d\n"], b""]
