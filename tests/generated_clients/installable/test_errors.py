"""Errors have the service's body; neither they nor the logs contain addresses."""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

import ctms_client
import httpx
import pytest
from ctms_client import CtmsError, ResponseError
from ctms_client.errors import redact

from ctms.testing.stub_server import Reply
from tests.generated_clients.installable.conftest import Make, StubService

ID = str(uuid4())


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (302, "ResponseError"),
        (400, "InvalidRequestError"),
        (403, "ForbiddenError"),
        (404, "NotFoundError"),
        (405, "ResponseError"),
        (409, "ConflictError"),
        (410, "GoneError"),
        (412, "PreconditionFailedError"),
        (413, "InvalidRequestError"),
        (422, "InvalidRequestError"),
        (500, "ServerError"),
    ],
)
def test_each_status_has_an_exception(client: Any, stub: StubService, status: int, name: str) -> None:
    headers = {"X-Request-Id": "abc", "Location": "/elsewhere"}
    stub.replies = [Reply(status, headers, {"detail": "The cause", "more": 1})]

    with pytest.raises(ResponseError, match=rf"^{status}: The cause \(request abc\)$") as raised:
        client.contacts.get(ID)

    assert type(raised.value).__name__ == name
    assert type(raised.value) is getattr(ctms_client, name)
    assert (raised.value.status, raised.value.request_id) == (status, "abc")
    assert raised.value.body == {"detail": "The cause", "more": 1}
    assert len(stub.requests) == 1


@pytest.mark.parametrize("body", [b"", b"<h1>Bad Gateway</h1>", b"[1]", b"\xff"])
def test_an_error_that_is_no_json_object(client: Any, stub: StubService, body: bytes) -> None:
    stub.replies = [Reply(500, body=body)]

    with pytest.raises(ResponseError, match=r"^500: no details$") as raised:
        client.contacts.get(ID)

    assert raised.value.body == {}


def test_validation_errors(client: Any, stub: StubService) -> None:
    detail = [{"loc": ["body", "email", 1], "msg": "Not a valid text", "type": "string"}]
    stub.replies = [Reply(422, body={"detail": detail})]

    with pytest.raises(ResponseError, match=r"^422: body\.email\.1: Not a valid text \(string\)$") as raised:
        client.contacts.get(ID)

    assert raised.value.detail == detail


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"{}", b"[]", b'"text"'])
def test_a_response_that_is_not_one_of_ctms(client: Any, stub: StubService, body: bytes) -> None:
    stub.replies = [Reply(200, body=body)]

    with pytest.raises(CtmsError, match="unexpected response with status 200"):
        client.contacts.get(ID)


@pytest.mark.parametrize("address", ["ada@example.com", "ada+x@example.com", "åda@bücher.example"])
def test_no_address_is_in_an_exception(client: Any, stub: StubService, address: str) -> None:
    stub.replies = [Reply(404, body={"detail": f"email {address} not found!"})]

    with pytest.raises(ResponseError, match="email <address> not found!") as raised:
        client.contacts.delete(address)

    assert "@" not in repr(raised.value)
    assert raised.value.detail == f"email {address} not found!"


def test_what_is_redacted() -> None:
    text = 'to "ada@example.com", <b@c.de>: (x@y.z) {"e":"f@g"}'

    assert redact(text) == 'to "<address>", <<address>>: (<address>) {"e":"<address>"}'


def test_no_address_is_in_the_logs(make: Make, stub: StubService, caplog: pytest.LogCaptureFixture) -> None:
    client = make(stub.url + "/", "id", "secret")
    caplog.set_level(logging.DEBUG)

    client.contacts.find(primary_email="ada@example.com")
    stub.replies = [Reply(200, body=[])]
    client.contacts.delete("ada/x@example.com")

    logged = [one.getMessage() for one in caplog.records]
    assert [line for line in logged if "@" in line or "%40" in line.lower() or "ada" in line] == []
    ours = [line for line in logged if line.startswith("HTTP Request")]
    assert f'HTTP Request: GET {stub.url}/ctms "HTTP/1.1 200 OK"' in ours
    assert f'HTTP Request: DELETE {stub.url}/ctms/… "HTTP/1.1 200 OK"' in ours


@pytest.mark.usefixtures("client")
def test_the_logs_of_other_services_are_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    transport = httpx.MockTransport(lambda _: httpx.Response(200))
    with httpx.Client(transport=transport) as other:
        other.get("https://other.example/?q=ada@example.com")

    assert "https://other.example/?q=ada@example.com" in caplog.text.replace("%40", "@")


def test_a_client_does_not_show_its_secret(client: Any) -> None:
    assert "secret_test" not in repr(vars(client)) + repr(client)
