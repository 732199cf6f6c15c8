"""The stub server records requests, fails on demand, keeps connections open and stops nevertheless."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
import requests

from ctms.testing import Reply, StubServer
from tests.waiting import timeout_of_requests, wait_until


@pytest.fixture
def stub_server() -> Iterator[StubServer]:
    """Run the server."""
    with StubServer() as running:
        yield running


def test_it_remembers_and_answers(stub_server: StubServer) -> None:
    with requests.Session() as session:
        first = session.post(f"{stub_server.url}/a?b=c", json={"name": "Zoë"}, headers={"X-Key": "1"}, timeout=60)
        stub_server.reply = Reply(207, {"X-Left": "5"}, {"errors": []})
        second = session.get(stub_server.url, timeout=60)

    assert (first.status_code, first.content) == (204, b"")
    assert (second.status_code, second.headers["X-Left"], second.json()) == (207, "5", {"errors": []})
    post, get = stub_server.received
    assert (post.method, post.path, post.headers["X-Key"], post.json) == ("POST", "/a?b=c", "1", {"name": "Zoë"})
    assert (get.method, get.path, get.body) == ("GET", "/", b"")


def test_it_keeps_connections_open(stub_server: StubServer) -> None:
    with closing(HTTPConnection(stub_server.url.removeprefix("http://"), timeout=60)) as connection:
        connection.request("POST", "/", b"x")
        connection.getresponse().read()
        kept = connection.sock
        connection.request("GET", "/")
        connection.getresponse().read()

        assert kept is not None
        assert connection.sock is kept


def test_it_answers_by_the_request(stub_server: StubServer) -> None:
    stub_server.reply = lambda request: Reply(200, body=request.body.upper())

    assert requests.post(stub_server.url, data=b"abc", timeout=60).content == b"ABC"


RAISED: dict[str, type[Exception]] = {
    "slow": requests.ReadTimeout,
    "closed": requests.ConnectionError,
    "half closed": requests.exceptions.ChunkedEncodingError,
    "no HTTP": requests.ConnectionError,
}


@pytest.mark.parametrize("how", StubServer.FAILURES)
def test_it_fails(how: str, stub_server: StubServer) -> None:
    stub_server.fails(how)

    if how in RAISED:
        with pytest.raises(RAISED[how]):
            requests.post(stub_server.url, data=b"x", timeout=(60, timeout_of_requests(how)))
        wait_until(lambda: stub_server.received)  # it may be slower than the client
    else:
        answer = requests.post(stub_server.url, data=b"x", timeout=60, allow_redirects=False)
        assert str(answer.status_code) == {"redirect": "302"}.get(how, how)
    assert [request.body for request in stub_server.received] == [b"x"]


def test_it_ends_while_clients_hold_on() -> None:
    with requests.Session() as session, StubServer() as running:
        session.post(running.url, timeout=60)

    with pytest.raises(requests.ConnectionError):
        requests.post(running.url, timeout=60)
