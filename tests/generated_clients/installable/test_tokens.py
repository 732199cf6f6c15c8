"""Tokens are requested when they are needed, renewed in time, and by one thread or task only."""

from __future__ import annotations

from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from ctms_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    InvalidResponseError,
    NotFoundError,
    Retries,
    ServerError,
    TransportError,
    tokens,
)

from ctms.testing.stub_server import ReceivedRequest, Reply, StubServer
from tests.generated_clients.installable.conftest import Make, StubService, find_patiently

MANY = 8


def sent_tokens(stub: StubService) -> list[str]:
    return [str(one.headers["Authorization"]).removeprefix("Bearer ") for one in stub.requests]


def test_one_token_serves_many_requests(client: Any, stub: StubService) -> None:
    for _ in range(3):
        client.contacts.find(sfdc_id="1")

    (request,) = stub.token_requests
    assert sent_tokens(stub) == ["t1"] * 3
    assert request.method == "POST"
    assert request.headers["Authorization"] == "Basic " + b64encode(b"id_test:secret_test").decode()
    assert request.body == b"grant_type=client_credentials"


@pytest.mark.parametrize(("lifetime", "kept_for"), [(3600, 3570), (40, 30)])
def test_a_token_is_renewed_before_it_expires(
    client: Any, stub: StubService, monkeypatch: pytest.MonkeyPatch, lifetime: int, kept_for: int
) -> None:
    now = [1000.0]
    monkeypatch.setattr(tokens, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stub.expires_in = lifetime

    for later in (0, kept_for - 1, kept_for + 1):
        now[0] = 1000.0 + later
        client.contacts.find(sfdc_id="1")

    assert sent_tokens(stub) == ["t1", "t1", "t2"]


def test_a_refused_token_is_renewed_once(client: Any, stub: StubService) -> None:
    stub.replies = [Reply(401, body={"detail": "Could not validate credentials"}), Reply(200, body=[])]

    assert client.contacts.find(sfdc_id="1") == []

    assert sent_tokens(stub) == ["t1", "t2"]


def test_the_body_is_sent_again_with_the_new_token(client: Any, stub: StubService) -> None:
    stub.replies = [Reply(401), Reply(404)]
    with pytest.raises(NotFoundError):
        client.contacts.update("9e3ce3a8-9b7c-4c35-9a3f-6e0a4b0a7a51", {"email": {"first_name": "Ada"}})

    assert [one.json for one in stub.requests] == [{"email": {"first_name": "Ada"}}] * 2


def test_a_client_without_access_is_refused(client: Any, stub: StubService) -> None:
    stub.replies = [Reply(401, body={"detail": "Could not validate credentials"})]

    with pytest.raises(AuthenticationError, match="Could not validate credentials"):
        client.contacts.find(sfdc_id="1")

    assert sent_tokens(stub) == ["t1", "t2"]


def test_wrong_credentials(client: Any, stub: StubService, delays: list[float]) -> None:
    stub.token_replies = [
        Reply(401, body={"detail": "Incorrect username or password", "error": "invalid_client"}),
    ]

    with pytest.raises(AuthenticationError, match="Incorrect username or password") as raised:
        client.contacts.find(sfdc_id="1")

    assert (len(stub.token_requests), stub.requests, delays) == (1, [], [])
    assert raised.value.body["error"] == "invalid_client"
    assert "secret_test" not in repr(raised.value)
    assert client.contacts.find(sfdc_id="1") == []  # the next request may succeed


def test_a_token_request_is_repeated(client: Any, stub: StubService, delays: list[float]) -> None:
    stub.token_replies = [Reply(429, {"Retry-After": "3"}), Reply(503)]

    assert client.contacts.find(sfdc_id="1") == []

    assert 3 <= delays[0] < 5
    assert len(delays) == 2


def test_a_token_request_fails(client: Any, stub: StubService) -> None:
    stub.token_replies = [Reply(500), Reply(200, body={"token": "t"}), Reply(200, body=b"<html>")]

    with pytest.raises(ServerError):
        client.contacts.find(sfdc_id="1")
    for _ in range(2):
        with pytest.raises(InvalidResponseError, match="access_token"):
            client.contacts.find(sfdc_id="1")


def test_a_slow_token_request_times_out(make: Make, stub: StubService) -> None:
    timeout = httpx.Timeout(60, read=0.2)
    client = make(stub.url, "id", "secret", timeout=timeout, retries=Retries(max_attempts=1))
    stub.token_replies = [StubServer.FAILURES["slow"]]

    with pytest.raises(TransportError, match="ReadTimeout"):
        client.contacts.find(sfdc_id="1")

    assert find_patiently(client) == []  # nobody holds the lock


class Rendezvous:
    """Refuses the token `t1`, but only after all of the first requests have been sent with it."""

    def __init__(self, stub: StubService) -> None:
        self._barrier = Barrier(MANY)
        self._lock = Lock()
        self._tokens = stub.server.reply
        stub.server.reply = self._reply

    def _reply(self, request: ReceivedRequest) -> Reply:
        if request.path == "/token":
            with self._lock:
                assert callable(self._tokens)
                return self._tokens(request)
        if request.headers["Authorization"] == "Bearer t1":
            self._barrier.wait(timeout=60)
            return Reply(401)
        return Reply(200, body=[])


def test_threads_share_a_token_and_its_renewal(stub: StubService) -> None:
    Rendezvous(stub)
    with Client(stub.url, "id_test", "secret_test") as client, ThreadPoolExecutor(MANY) as pool:
        found = list(pool.map(lambda _: client.contacts.find(sfdc_id="1"), range(MANY)))

    assert found == [[]] * MANY
    assert len(stub.token_requests) == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_tasks_share_a_token_and_its_renewal(stub: StubService, backend: str) -> None:
    Rendezvous(stub)
    found = []

    async def find(client: AsyncClient) -> None:
        found.append(await client.contacts.find(sfdc_id="1"))

    async def run() -> None:
        async with AsyncClient(stub.url, "id_test", "secret_test") as client, anyio.create_task_group() as group:
            for _ in range(MANY):
                group.start_soon(find, client)

    anyio.run(run, backend=backend)

    assert found == [[]] * MANY
    assert len(stub.token_requests) == 2
