"""Webhooks call public addresses only, and the very address that was looked at."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from ctms.plugins import ContactState, Done, Pause, TryLater
from ctms.testing import StubServer
from ctms_plugins.webhook import addresses
from ctms_plugins.webhook.backend import ChangeMessages
from tests.plugins.webhook_client import client

GONE = ContactState("an-id", None)

PRIVATE = [
    "0.0.0.0",  # noqa: S104
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "2002:7f00:1::",
    "64:ff9b::a00:1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not addresses.is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:93.184.215.14", "64:ff9b::808:808"]
)
def test_addresses_that_are(address: str) -> None:
    assert addresses.is_public(ip_address(address))


class Names:
    """Replaces name resolution; `asked` are the resolved names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        self._look_up = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: str, port: int, *args: Any, **kwargs: Any) -> Any:
        """Resolve a name; addresses resolve to themselves."""
        if not host.endswith(".example.com"):
            return self._look_up(host, port, *args, **kwargs)
        self.asked.append(host)
        found = self._answers.pop(0)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost", "0x7f.1", "2130706433"])
def test_private_addresses_are_not_called(host: str, stub_server: StubServer) -> None:
    url = stub_server.url.replace("127.0.0.1", host)

    outcomes = ChangeMessages(client(allow_private=False), url).push([GONE], "key")

    assert isinstance(outcomes["an-id"], Pause), outcomes
    assert "not public" in outcomes["an-id"].reason
    assert stub_server.received == []


@pytest.mark.parametrize("found", [["127.0.0.1"], ["93.184.215.14", "127.0.0.1"]])
def test_names_that_lead_to_them_neither(
    found: list[str], stub_server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Names(monkeypatch, found)
    url = stub_server.url.replace("127.0.0.1", "hooks.example.com")

    outcomes = ChangeMessages(client(allow_private=False), url).push([GONE], "key")

    assert isinstance(outcomes["an-id"], Pause)
    assert stub_server.received == []


def test_a_name_is_looked_up_once_and_that_address_is_called(
    stub_server: StubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first answer is where the stub server runs, and counts as public here; a second look-up would lead astray.
    names = Names(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])
    monkeypatch.setattr(addresses, "is_public", lambda address: str(address) == "127.0.0.1")
    port = stub_server.url.rpartition(":")[2]

    changes = ChangeMessages(client(allow_private=False), f"http://hooks.example.com:{port}")
    outcomes = [changes.push([GONE], "key") for _ in range(2)]

    assert outcomes == [{"an-id": Done()}, {"an-id": Done()}]
    assert names.asked == ["hooks.example.com"]
    assert {request.headers["Host"] for request in stub_server.received} == {f"hooks.example.com:{port}"}


def test_the_next_address_is_tried(stub_server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, ["127.0.0.2", "127.0.0.1"])  # the first port is closed
    monkeypatch.setattr(addresses, "is_public", lambda _: True)
    url = stub_server.url.replace("127.0.0.1", "hooks.example.com")

    assert ChangeMessages(client(allow_private=False), url).push([GONE], "key") == {"an-id": Done()}


def test_an_unresolvable_name_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, [])

    outcomes = ChangeMessages(client(allow_private=False), "https://hooks.example.com").push([GONE], "key")

    assert outcomes == {"an-id": TryLater(None, "no response (ConnectionError)")}


def test_no_proxy_connects_in_its_place(stub_server: StubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", stub_server.url)
    Names(monkeypatch, [])

    ChangeMessages(client(allow_private=False), "http://hooks.example.com").push([GONE], "key")

    assert stub_server.received == []
