"""Fixtures: both Python clients behind one interface, a stub service, and delays that are recorded instead of waited.

The code of the clients was generated before: `python -m tools.clients generate`, as `tox -e generated-clients` does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ctms.testing.stub_server import ReceivedRequest, Reply, StubServer
from tests.serving import Served
from tests.waiting import until
from tools.clients import PYTHON

sys.path.insert(0, str(PYTHON / "src"))

from ctms_client import AsyncClient, Client, TransportError, retries
from ctms_client.paging import AsyncPaged

Make = Callable[..., Any]
"""Creates a client that is closed after the test."""


def find_patiently(client: Any) -> Any:
    """Search with a client whose timeout is so short that a busy machine may need several requests; return the result.

    Then the client has a token.
    """

    def look() -> Any:
        try:
            return client.contacts.find(sfdc_id="1")
        except TransportError:
            return None

    return until(look, lambda found: found is not None)


class Blocking:
    """An asynchronous client, or a part of it, with the interface of the synchronous one."""

    def __init__(self, portal: BlockingPortal, thing: Any) -> None:
        self._portal = portal
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        if name == "contacts":
            return Blocking(self._portal, found)
        return self._blocking(found) if callable(found) else found

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(aiter(self._thing))

    def _blocking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def call(arguments: Any, options: Any) -> Any:
            result = function(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        def wrapper(*arguments: Any, **options: Any) -> Any:
            result = self._portal.call(call, arguments, options)
            if isinstance(result, AsyncIterator):
                return self._iterate(result)
            return Blocking(self._portal, result) if isinstance(result, AsyncPaged) else result

        return wrapper

    def _iterate(self, generator: Any) -> Iterator[Any]:
        end = object()

        async def following() -> Any:
            return await anext(generator, end)

        while (item := self._portal.call(following)) is not end:
            yield item


@pytest.fixture(params=["sync", "asyncio", "trio"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Creates a client of either kind."""
    with ExitStack() as stack:
        if request.param == "sync":
            yield lambda *arguments, **options: stack.enter_context(Client(*arguments, **options))
            return
        portal = stack.enter_context(start_blocking_portal(request.param))

        def create(*arguments: Any, **options: Any) -> Any:
            client = portal.call(lambda: AsyncClient(*arguments, **options))
            stack.callback(lambda: portal.call(client.aclose))
            return Blocking(portal, client)

        yield create


@pytest.fixture
def ctms(make: Make, service: Served) -> Any:
    """A client of the served app."""
    return make(service.url, service.client_id, service.client_secret)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays between attempts, which are not waited for."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr(retries, "time", SimpleNamespace(sleep=found.append))
    monkeypatch.setattr(retries, "anyio", SimpleNamespace(sleep=sleep))
    return found


class StubService:
    """A service that issues the tokens `t1`, `t2`, … and gives the `replies` in turn, the last one again and again."""

    def __init__(self, server: StubServer) -> None:
        self.url = server.url
        self.server = server
        self.replies: list[Reply] = [Reply(200, body=[])]
        self.token_replies: list[Reply] = []
        self.expires_in = 3600
        self.issued = 0
        server.reply = self._reply

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The requests other than those for tokens."""
        return [one for one in self.server.received if one.path != "/token"]

    @property
    def token_requests(self) -> list[ReceivedRequest]:
        """The requests for tokens."""
        return [one for one in self.server.received if one.path == "/token"]

    def _reply(self, request: ReceivedRequest) -> Reply:
        if request.path != "/token":
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if self.token_replies:
            return self.token_replies.pop(0)
        self.issued += 1
        body = {"access_token": f"t{self.issued}", "token_type": "bearer", "expires_in": self.expires_in}
        return Reply(200, body=body)


@pytest.fixture
def stub() -> Iterator[StubService]:
    """A stub of the service."""
    with StubServer() as server:
        yield StubService(server)


@pytest.fixture
def client(make: Make, stub: StubService) -> Any:
    """A client of the stub."""
    return make(stub.url, "id_test", "secret_test")
