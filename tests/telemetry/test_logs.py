"""Logs: the fields of `request.summary` in both formats, and errors with their traceback and request id."""

from __future__ import annotations

import json
import logging
import os
import select
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
from ctms.telemetry.logs import init_logs, log_summaries
from ctms.telemetry.requests import RequestLabels, RequestRecord
from tests.clients.factories import create_client
from tests.conftest import SECRET_KEY
from tests.contacts.factories import minimal
from tests.http import ApiClient

ID = "332de237-cab7-4461-bcc3-48e68f42bd5c"
Records = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def written(app: Flask, settings: Settings, capfd: pytest.CaptureFixture[str]) -> Iterator[Records]:  # noqa: ARG001
    """Returns the MozLog records written since the last call."""
    init_logs(replace(settings, use_mozlog=True))
    yield lambda: [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    init_logs(settings)


def summary(written: Records) -> dict[str, Any]:
    """Return the only summary, without the fields that differ from run to run."""
    (record,) = [record for record in written() if record["Type"] == "request.summary"]
    fields: dict[str, Any] = record["Fields"]
    assert fields.pop("t") >= 0
    return fields


def test_summary_of_an_authenticated_request(api: ApiClient, written: Records) -> None:
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
def test_a_user_agent_with_an_address(anonymous: ApiClient, written: Records, agent: str) -> None:
    anonymous.get("/nothing", headers={"User-Agent": agent})

    assert "jane" not in summary(written)["agent"]


def test_summary_of_an_anonymous_request(anonymous: ApiClient, written: Records) -> None:
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
def test_failed_authentication_and_authorization(  # noqa: PLR0917  parameters
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


def test_failed_token_request(anonymous: ApiClient, written: Records) -> None:
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


def test_batched_lines_are_written_in_atomic_blocks(settings: Settings) -> None:
    labels = RequestLabels("GET", "/ctms/{email_id}", 200, "agent/1.0")
    requests = [RequestRecord(labels, 0.5, f"r-{number}", 1700000000.25) for number in range(100)]
    blocks: list[bytes] = []
    reader, writer = os.pipe()
    kept = os.dup(2)
    init_logs(replace(settings, use_mozlog=True))
    try:
        os.dup2(writer, 2)
        os.set_blocking(reader, False)
        with pytest.MonkeyPatch.context() as patch:
            write = os.write

            def record(to: int, text: bytes) -> int:
                blocks.append(text)
                return write(to, text)

            patch.setattr(os, "write", record)
            log_summaries(requests)
        written = os.read(reader, 1_000_000)
    finally:
        os.dup2(kept, 2)
        init_logs(settings)
        for descriptor in (reader, writer, kept):
            os.close(descriptor)

    assert b"".join(blocks) == written
    assert 1 < len(blocks) < 20
    assert all(len(block) <= select.PIPE_BUF and block.endswith(b"}\n") for block in blocks)
    records = [json.loads(line) for line in written.splitlines()]
    assert [record["Fields"]["rid"] for record in records] == [f"r-{number}" for number in range(100)]
    assert {record["Timestamp"] for record in records} == {int(1700000000.25 * 1e9)}


def test_a_closed_standard_error_does_not_fail() -> None:
    kept = os.dup(2)
    try:
        os.close(2)
        log_summaries([RequestRecord(RequestLabels("GET", "/", 200, ""), 0.5, "r-1", 1700000000.25)])
    finally:
        os.dup2(kept, 2)
        os.close(kept)
