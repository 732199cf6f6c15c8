"""Requests are repeated if this is safe, after the delay that the service asks for."""

from __future__ import annotations

import socket
from typing import Any
from uuid import uuid4

import httpx
import pytest
from ctms_client import CtmsError, Retries, ServerError, TooManyRequestsError, TransportError
from ctms_client.retries import retry_after

from ctms.testing.stub_server import Reply, StubServer
from tests.generated_clients.installable.conftest import Make, StubService, find_patiently

ID = str(uuid4())
DONE = Reply(404, body={"detail": "Unknown email_id"})
"""A response that is the last one."""


def attempts(client: Any, stub: StubService, method: str, **options: Any) -> int:
    """Make a request of this method; return how often it was sent."""
    body: dict[str, Any] = {"email": {"primary_email": "ada@example.com", "email_id": ID}}
    calls = {
        "GET": lambda: client.contacts.get(ID),
        "POST": lambda: client.contacts.create(body),
        "PUT": lambda: client.contacts.replace(ID, body, **options),
        "PATCH": lambda: client.contacts.update(ID, body, **options),
        "DELETE": lambda: client.contacts.delete("ada@example.com", **options),
    }
    with pytest.raises(CtmsError):
        calls[method]()
    assert {one.method for one in stub.requests} == {method}
    assert len({one.body for one in stub.requests}) == 1
    return len(stub.requests)


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("status", [429, 503])
def test_any_request_is_repeated_if_it_changed_nothing(
    client: Any, stub: StubService, delays: list[float], method: str, status: int
) -> None:
    stub.replies = [Reply(status, {"Retry-After": "7"}), DONE]

    assert attempts(client, stub, method) == 2

    (delay,) = delays
    assert 7 <= delay <= 9


FAILURES = {
    "502": Reply(502),
    "503": Reply(503),
    "504": Reply(504),
    **{name: StubServer.FAILURES[name] for name in ("closed", "half closed", "no HTTP")},
}


@pytest.mark.usefixtures("delays")
@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("method", METHODS)
def test_a_request_that_may_have_had_an_effect(client: Any, stub: StubService, method: str, failure: str) -> None:
    stub.replies = [FAILURES[failure], DONE]

    assert attempts(client, stub, method) == (1 if method == "PATCH" else 2)


@pytest.mark.usefixtures("delays")
@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_a_conditional_write_is_not_repeated(client: Any, stub: StubService, method: str) -> None:
    stub.replies = [Reply(503), DONE]

    assert attempts(client, stub, method, if_match='"1"') == 1


@pytest.mark.usefixtures("delays")
@pytest.mark.parametrize("status", [400, 403, 409, 422, 500, 501])
def test_other_errors_are_not_repeated(client: Any, stub: StubService, status: int) -> None:
    stub.replies = [Reply(status, body={"detail": "failed"}), DONE]

    assert attempts(client, stub, "GET") == 1


def test_the_delay_doubles_up_to_a_limit(make: Make, stub: StubService, delays: list[float]) -> None:
    client = make(stub.url, "id", "secret", retries=Retries(max_attempts=6, max_backoff_seconds=3))
    stub.replies = [Reply(503)]

    with pytest.raises(ServerError) as raised:
        client.contacts.get(ID)

    assert raised.value.status == 503
    assert len(stub.requests) == 6
    for delay, longest in zip(delays, [0.5, 1, 2, 3, 3], strict=True):
        assert longest / 2 <= delay <= longest


def test_a_delay_that_is_too_long_is_an_error(client: Any, stub: StubService, delays: list[float]) -> None:
    stub.replies = [Reply(429, {"Retry-After": "3600"}, {"detail": "Too many requests"})]

    with pytest.raises(TooManyRequestsError) as raised:
        client.contacts.get(ID)

    assert raised.value.headers["Retry-After"] == "3600"
    assert (len(stub.requests), delays) == (1, [])


def test_a_service_that_cannot_be_reached(make: Make, delays: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = make(f"http://127.0.0.1:{unused.getsockname()[1]}", "id", "secret")

        with pytest.raises(TransportError, match="PATCH failed: ConnectError") as raised:
            client.contacts.update(ID, {"email": {"primary_email": "ada@example.com"}})

    assert isinstance(raised.value.__cause__, httpx.ConnectError)
    assert len(delays) == 4


def test_a_slow_service(make: Make, stub: StubService, delays: list[float]) -> None:
    timeout = httpx.Timeout(60, read=0.2)
    client = make(stub.url, "id", "secret", timeout=timeout, retries=Retries(max_attempts=2))
    find_patiently(client)
    delays.clear()
    stub.replies = [StubServer.FAILURES["slow"]]

    with pytest.raises(TransportError, match="GET failed: ReadTimeout"):
        client.contacts.get(ID)

    assert len(delays) == 1


@pytest.mark.parametrize(
    ("value", "date", "seconds"),
    [
        ("0", None, 0),
        (" 15 ", None, 15),
        ("Fri, 27 Nov 2026 12:00:30 GMT", "Fri, 27 Nov 2026 12:00:00 GMT", 30),
        ("Fri, 27 Nov 2026 11:59:00 GMT", "Fri, 27 Nov 2026 12:00:00 GMT", 0),
        ("Fri, 01 Jan 1999 00:00:00 GMT", None, 0),
        ("soon", None, None),
        ("-1", None, None),
        ("1.5", None, None),
        ("", None, None),
        ("٣", None, None),
    ],
)
def test_retry_after(value: str, date: str | None, seconds: float | None) -> None:
    headers = [(b"Retry-After", value.encode()), *([(b"Date", date.encode())] if date else [])]

    assert retry_after(httpx.Response(429, headers=headers)) == seconds


def test_a_date_is_compared_with_the_clock_without_the_one_of_the_service() -> None:
    seconds = retry_after(httpx.Response(429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}))

    assert seconds is not None
    assert seconds > 1e6
