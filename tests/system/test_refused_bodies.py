"""Clients that send everything before they read get the answer to a body that was refused, and no broken pipe."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import requests

from ctms.api.drain import MAX_DRAIN_BYTES
from tests.serving import Served, serve

SOON = 60
MEGABYTE = 1024 * 1024
JSON = {"Content-Type": "application/json"}


class Refused(NamedTuple):
    """A request that is refused before its body is read; `authorized` means that it has a valid token."""

    status: int
    method: str
    path: str
    content_type: str = "application/json"
    authorized: bool = True


REFUSED = [
    Refused(413, "POST", "/ctms"),
    Refused(413, "PUT", "/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c"),
    Refused(413, "PATCH", "/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c"),
    Refused(413, "POST", "/erasures"),
    Refused(413, "POST", "/token", "application/x-www-form-urlencoded"),
    Refused(401, "POST", "/ctms", authorized=False),
    Refused(404, "POST", "/nothing"),
    Refused(404, "DELETE", "/ctms/nobody@example.com"),
    Refused(405, "POST", "/updates"),
    Refused(422, "POST", "/ctms", "text/plain"),
    Refused(422, "GET", "/updates"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a service with several slots for draining bodies: the wait for the only one is short on a busy machine."""
    with serve(tmp_path_factory.mktemp("refusing"), CTMS_THREADS="16") as running:
        yield running


@pytest.fixture(scope="module")
def token(served: Served) -> str:
    """A token of its admin."""
    return served.token()


Send = Callable[[str, Refused, dict[str, str], int], tuple[int, bytes]]


def with_urllib(url: str, one: Refused, headers: dict[str, str], size: int) -> tuple[int, bytes]:
    """Send with a client that writes all of the request, then reads."""
    request = urllib.request.Request(url, data=bytes(size), headers=headers, method=one.method)  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=SOON)  # noqa: S310
    with refused.value as answer:
        return answer.code, answer.read()


def with_requests(url: str, one: Refused, headers: dict[str, str], size: int) -> tuple[int, bytes]:
    """Send twice on one connection."""
    with requests.Session() as session:
        for _ in range(2):
            answer = session.request(one.method, url, data=bytes(size), headers=headers, timeout=SOON)
        return answer.status_code, answer.content


def with_chunks(url: str, one: Refused, headers: dict[str, str], size: int) -> tuple[int, bytes]:
    """Send in chunks, without a length, all before the answer is read."""
    host, path = url.removeprefix("http://").split("/", 1)
    chunks = (bytes(65536) for _ in range(size // 65536))
    with closing(HTTPConnection(host, timeout=SOON)) as connection:
        connection.request(one.method, f"/{path}", chunks, headers, encode_chunked=True)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.fixture(params=[with_urllib, with_requests, with_chunks])
def send(request: pytest.FixtureRequest) -> Send:
    """A way to send a request."""
    sender: Send = request.param
    return sender


def headers_of(one: Refused, token: str, send: Send) -> dict[str, str]:
    headers = {"Content-Type": one.content_type}
    if send is with_chunks:
        headers["Transfer-Encoding"] = "chunked"
    if one.authorized:
        headers["Authorization"] = f"Bearer {token}"
    return headers


@pytest.mark.parametrize("one", REFUSED, ids=lambda one: f"{one.status}-{one.method}{one.path[:12]}")
def test_the_answer_is_read(served: Served, token: str, send: Send, one: Refused) -> None:
    status, body = send(f"{served.url}{one.path}", one, headers_of(one, token, send), 10 * MEGABYTE)

    assert status == one.status
    assert json.loads(body)["detail"]


@pytest.fixture
def plain_client(served: Served) -> Iterator[str]:
    """A token of a client without permissions, gone in the end."""
    made = json.loads(served.flask("ctms", "clients", "create", "id_nothing", "a@example.com", "--json").stdout)
    answer = requests.post(f"{served.url}/token", auth=("id_nothing", made["client_secret"]), timeout=SOON)
    yield str(answer.json()["access_token"])
    served.flask("ctms", "clients", "delete", "id_nothing", "--yes")


def test_a_client_that_lacks_the_permission(served: Served, plain_client: str, send: Send) -> None:
    refused = Refused(403, "DELETE", "/ctms/nobody@example.com")

    status, _ = send(f"{served.url}{refused.path}", refused, headers_of(refused, plain_client, send), 10 * MEGABYTE)

    assert status == 403


def test_the_connection_stays_good(served: Served, token: str) -> None:
    """The rest of a refused body is not taken for the next request."""
    host = served.url.removeprefix("http://")
    with closing(HTTPConnection(host, timeout=SOON)) as connection:
        statuses = []
        for _ in range(3):
            connection.request("POST", "/ctms", b"GET / HTTP/1.1\r\n\r\n" * MEGABYTE, JSON)
            with connection.getresponse() as answer:
                statuses.append((answer.status, answer.read()))
            connection.request("GET", "/ctms?sfdc_id=x", headers={"Authorization": f"Bearer {token}"})
            with connection.getresponse() as answer:
                statuses.append((answer.status, answer.read()))

    assert statuses == [(401, b'{"detail": "Not authenticated"}'), (200, b"[]")] * 3


class TestExpect:
    def curl(self, served: Served, file: Path, *arguments: str) -> list[str]:
        if shutil.which("curl") is None:
            pytest.skip("there is no curl")
        written = "%{http_code} %{size_upload} %{exitcode}"
        done = subprocess.run(
            [
                *("curl", "--silent", "--output", "/dev/null", "--write-out", written, "--max-time", str(SOON)),
                *(
                    "-H",
                    "Content-Type: application/json",
                    "--data-binary",
                    f"@{file}",
                    *arguments,
                    f"{served.url}/ctms",
                ),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split()

    @pytest.mark.parametrize("chunked", [[], ["-H", "Transfer-Encoding: chunked"]])
    def test_a_client_that_expects_continue_is_refused_before_it_sends(
        self, served: Served, tmp_path: Path, chunked: list[str]
    ) -> None:
        """As curl does with every large body."""
        file = tmp_path / "body"
        file.write_bytes(bytes(10 * MEGABYTE))

        status, sent, failed = self.curl(served, file, "-H", "Expect: 100-continue", *chunked)

        assert (status, failed) == ("401", "0")
        assert int(sent) < MEGABYTE

    def test_a_client_that_expects_continue_sends_its_body(self, served: Served, token: str, tmp_path: Path) -> None:
        file = tmp_path / "body"
        file.write_bytes(bytes(10 * MEGABYTE))

        authorization = f"Authorization: Bearer {token}"
        chunked = "Transfer-Encoding: chunked"
        status, sent, failed = self.curl(served, file, "-H", "Expect: 100-continue", "-H", authorization, "-H", chunked)

        assert (status, failed) == ("413", "0")
        assert int(sent) > 0

    def test_a_client_that_expects_continue_but_does_not_wait(self, served: Served) -> None:
        one = Refused(401, "POST", "/ctms", authorized=False)

        assert with_urllib(f"{served.url}/ctms", one, {"Expect": "100-continue"}, 10 * MEGABYTE)[0] == 401


def test_a_body_longer_than_the_limit_is_not_read(served: Served) -> None:
    """However much a client sends, the service does not take it."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=SOON) as client:
        client.sendall(b"POST /ctms HTTP/1.1\r\nHost: ctms\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
        sent = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 4 * MAX_DRAIN_BYTES:
                client.sendall(chunk)
                sent += 65536

    assert MAX_DRAIN_BYTES <= sent < 2 * MAX_DRAIN_BYTES


@contextmanager
def peak_memory(served: Served) -> Iterator[list[int]]:
    """Watch the memory of the processes that serve, inside; the list holds how much more there was at the peak."""
    processes = [one for one in psutil.Process(served.process.pid).children(recursive=True) if "python" in one.name()]

    def memory() -> int:
        return sum(process.memory_info().rss for process in processes)

    before, found, done = memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            found[0] = max(found[0], memory() - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        done.set()
        watching.join()


def test_memory_is_flat(served: Served, token: str, send: Send) -> None:
    one = REFUSED[0]

    def attack(rounds: int) -> None:
        for _ in range(rounds):
            send(f"{served.url}{one.path}", one, headers_of(one, token, send), 60 * MEGABYTE)

    attack(1)
    started = time.monotonic()
    with peak_memory(served) as peak:
        attack(4)

    assert time.monotonic() - started < SOON
    assert peak[0] < 20 * MEGABYTE
