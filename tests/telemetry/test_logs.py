"""Logs: what `request.summary` says of a request, in both formats, and errors with their traceback and request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from flask import Flask

from ctms.clients.registry import set_enabled
from ctms.clients.tokens import tokens
from ctms.contacts import commands
from ctms.settings import Settings
from ctms.telemetry.logs import init_logs
from tests.clients.factories import create_client
from tests.conftest import SECRET_KEY
from tests.contacts.factories import minimal
from tests.http import ApiClient

ID = "332de237-cab7-4461-bcc3-48e68f42bd5c"
Records = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def written(settings: Settings, capfd: pytest.CaptureFixture[str]) -> Iterator[Records]:
    """Returns the MozLog records written since it was asked last."""
    init_logs(replace(settings, use_mozlog=True))
    yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    init_logs(settings)


def summary(written: Records) -> dict[str, Any]:
    """The one summary, without what differs from run to run."""
    (record,) = [record for record in written() if record["Type"] == "request.summary"]
    fields: dict[str, Any] = record["Fields"]
    assert fields.pop("t") >= 0
    return fields


def test_a_request_of_a_client(api: ApiClient, written: Records) -> None:
    api.get(f"/ctms/{ID}", headers={"X-Request-Id": "r-1", "User-Agent": "basket/1.0 (jane@example.com)"})

    assert summary(written) == {
        "agent": "basket/1.0 …",
        "path": "/ctms/{email_id}",
        "method": "GET",
        "code": 404,
        "rid": "r-1",
        "uid": "id_test",
        "client_id": "id_test",
        "client_allowed": True,
    }


@pytest.mark.parametrize("agent", ["jane%40example.com", "a jane@example.com b", "<jane@example.com>"])
def test_an_agent_that_has_an_address(anonymous: ApiClient, written: Records, agent: str) -> None:
    anonymous.get("/nothing", headers={"User-Agent": agent})

    assert "jane" not in summary(written)["agent"]


def test_a_request_of_nobody(anonymous: ApiClient, written: Records) -> None:
    anonymous.request("JANE", "/jane", headers={"X-Request-Id": "r-2", "User-Agent": ""})

    assert summary(written) == {
        "agent": "",
        "path": "unmatched",
        "method": "other",
        "code": 404,
        "rid": "r-2",
        "uid": "",
    }


@pytest.mark.parametrize(
    ("who", "cause", "known"),
    [
        ("nobody", "no_token", None),
        ("garbage", "invalid_token", None),
        ("expired", "expired_token", None),
        ("unknown", "unknown_client", None),
        ("disabled", "disabled_client", "id_disabled"),
        ("powerless", "missing_permission", "id_powerless"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_who_is_not_let_in(  # noqa: PLR0917  parameters
    app: Flask, written: Records, who: str, cause: str, known: str | None, method: str
) -> None:
    create_client("id_disabled")
    set_enabled("id_disabled", False)
    create_client("id_powerless")
    token = {
        "nobody": None,
        "garbage": "garbage",
        "expired": jwt.encode({"sub": "api_client:id_x", "exp": int(time.time()) - 1}, SECRET_KEY, algorithm="HS256"),
        "unknown": tokens().issue("id_nobody"),
        "disabled": tokens().issue("id_disabled"),
        "powerless": tokens().issue("id_powerless"),
    }[who]
    written()

    ApiClient(app.test_client(), token).request(method, f"/ctms/{ID}", json={})

    fields = summary(written)
    assert fields["auth_fail"] == cause
    assert fields["uid"] == (known or "")
    assert (fields.get("client_id"), fields.get("client_allowed")) == (known, False if known else None)
    assert "token_fail" not in fields


def test_who_gets_no_token(anonymous: ApiClient, written: Records) -> None:
    anonymous.request("POST", "/token", data={"client_id": "id_nobody", "client_secret": "x"})

    fields = summary(written)
    assert fields["token_fail"] == "unknown_client"
    assert "auth_fail" not in fields
    assert "id_nobody" not in str(fields)


@pytest.mark.parametrize("mozlog", [True, False])
def test_an_error_has_its_traceback_and_its_request(
    api: ApiClient, settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mozlog: bool
) -> None:
    address = "jane@example.com"

    def fail(*_: Any) -> Any:
        logging.getLogger("ctms.somewhere").warning("on the way")
        raise RuntimeError(f"about {address}")

    monkeypatch.setattr(commands, "create", fail)
    init_logs(replace(settings, use_mozlog=mozlog))
    try:
        api.post("/ctms", minimal(primary_email=address), headers={"X-Request-Id": "r-3"})
    finally:
        init_logs(settings)

    output = capfd.readouterr().err
    assert "jane" not in output
    if mozlog:
        warning, error, last = [json.loads(line) for line in output.splitlines()]
        assert error["Fields"]["error"] == "RuntimeError"
        assert "in fail" in error["Fields"]["traceback"]
        assert [record["Fields"]["rid"] for record in (warning, error, last)] == ["r-3"] * 3
    else:
        assert "ctms.somewhere: on the way rid=r-3\n" in output
        assert "unexpected error rid=r-3\n  File" in output
        assert "in fail" in output
        assert output.count("rid=r-3") == 3
