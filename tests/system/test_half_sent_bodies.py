"""Clients that stop in the middle of a body do not stop the service, though each holds a thread that waits for it."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests

from ctms.api.drain import MAX_DRAIN_SECONDS
from tests.serving import Served

CLIENTS = 32
"""Several times as many as the service has threads."""

SOON = 15
"""Seconds within which every request is answered, however many clients hang: less than `MAX_DRAIN_SECONDS`."""

SETTLE_SECONDS = 120
"""Within which the service has dealt with all the clients that hang: a request for a token waits for its turn."""


def half_sent(path: str) -> bytes:
    """Return a request without a token whose body stops after its first byte."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: ctms",
        "Content-Type: application/x-www-form-urlencoded",
        "Content-Length: 1000",
    )
    return "\r\n".join((*lines, "", "x")).encode()


@contextmanager
def hanging(served: Served, *paths: str) -> Iterator[list[socket.socket]]:
    """Have clients hang in the middle of a body, so many for each path, inside; then they go away."""
    host, port = served.url.removeprefix("http://").split(":")
    with ExitStack() as opened:
        clients = []
        for path in paths * CLIENTS:
            client = opened.enter_context(socket.create_connection((host, int(port)), timeout=SOON))
            client.sendall(half_sent(path))
            clients.append(client)
        yield clients


def closed_by_server(clients: list[socket.socket]) -> int:
    """Return how many connections the server has closed."""
    closed = 0
    for client in clients:
        while select.select([client], [], [], 0)[0]:
            try:
                received = client.recv(65536)
            except ConnectionResetError:
                received = b""
            if not received:
                closed += 1
                break
    return closed


@pytest.fixture
def contact(session: requests.Session, served: Served) -> Iterator[str]:
    """The path of a contact."""
    body = {"email": {"primary_email": "half-sent@example.com"}}
    made = session.post(f"{served.url}/ctms", json=body, timeout=60)
    path = f"/ctms/{made.json()['email']['email_id']}"
    yield path
    session.delete(f"{served.url}/ctms/half-sent@example.com", timeout=60)


def assert_answers(served: Served, token: str, contact: str) -> None:
    """Ask each kind of request several times, on connections of their own, which reach all processes."""
    for _ in range(8):
        beat = requests.get(f"{served.url}/__lbheartbeat__", timeout=SOON)
        read = requests.get(f"{served.url}{contact}", headers={"Authorization": f"Bearer {token}"}, timeout=SOON)
        assert (beat.status_code, read.status_code) == (200, 200)


def wait_until_settled(clients: list[socket.socket], *, held: int) -> None:
    """Wait until the server has closed all the connections but those whose clients it waits for."""
    give_up = time.monotonic() + SETTLE_SECONDS
    left = list(clients)
    while len(left) > held:
        assert time.monotonic() < give_up, f"{len(left)} connections are open"
        left = [client for client in left if not closed_by_server([client])]
        time.sleep(0.1)


@pytest.mark.parametrize("paths", [("/ctms",), ("/token",), ("/ctms", "/token")], ids="+".join)
def test_the_service_keeps_serving(served: Served, token: str, contact: str, paths: tuple[str, ...]) -> None:
    """Both kinds at once, too: two processes of four threads each wait for three clients each."""
    with hanging(served, *paths) as clients:
        wait_until_settled(clients, held=6)
        assert_answers(served, token, contact)

    assert_answers(served, token, contact)


@pytest.mark.long
def test_the_service_keeps_serving_beyond_the_limit(served: Served, token: str, contact: str) -> None:
    with hanging(served, "/ctms"):
        over = time.monotonic() + MAX_DRAIN_SECONDS + 3
        while time.monotonic() < over:
            assert_answers(served, token, contact)
            time.sleep(1)


def test_all_is_as_before_when_the_clients_are_gone(served: Served, token: str, contact: str) -> None:
    """The threads that waited are free: tokens are issued, and large bodies that are refused are drained."""
    with hanging(served, "/ctms", "/token") as clients:
        wait_until_settled(clients, held=6)
    assert_answers(served, token, contact)

    for _ in range(8):
        assert served.token()
        refused = requests.post(f"{served.url}/ctms", data=bytes(10 * 1024 * 1024), timeout=60)
        assert refused.status_code == 401


def test_clients_without_a_slot_get_retry_after(served: Served) -> None:
    """A request for a token is refused while too many others are half sent, and not kept waiting."""
    with hanging(served, "/token") as clients:
        wait_until_settled(clients, held=6)
        answer = requests.post(f"{served.url}/token", data={"client_id": "id_x"}, timeout=SOON)

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"
    assert json.loads(answer.text) == {"detail": "too many clients have not finished sending their requests"}
