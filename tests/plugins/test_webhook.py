"""Signed messages about contacts that change or are deleted."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ctms.hooks.manager import load_plugins
from ctms.plugins import ContactState, Done, OperatorError, Pause, Refused, SlowDown, TryLater
from ctms.settings import Settings
from ctms.testing import BackendContract, Reply, StubServer
from ctms_plugins.webhook.backend import ChangeMessages
from ctms_plugins.webhook.client import WebhookClient, retry_after
from tests.plugins.webhook_client import ENVIRONMENT, NEW, OLD, client, verified

DOCUMENT = {
    "email": {"email_id": "an-id", "primary_email": "jane@example.com", "update_timestamp": "2026-01-27T10:00:00+00:00"}
}
JANE = ContactState("an-id", DOCUMENT)
GONE = ContactState("an-id", None)


@pytest.fixture
def changes(stub_server: StubServer) -> ChangeMessages:
    """The backend, connected to the stub server."""
    return ChangeMessages(client(), f"{stub_server.url}/hook")


class TestContract(BackendContract):
    """The contract of backends."""

    name = "webhook"

    @pytest.fixture
    def ctms_environment(self) -> Mapping[str, str]:
        """The plugin is on."""
        return ENVIRONMENT

    @pytest.fixture
    def implementation(self, changes: ChangeMessages) -> ChangeMessages:
        """Posts here instead of to the given URL."""
        return changes

    @pytest.fixture(params=StubServer.FAILURES)
    def failing_implementation(self, stub_server: StubServer, request: pytest.FixtureRequest) -> ChangeMessages:
        """The backend, connected to a stub server that fails."""
        stub_server.fails(request.param)
        return ChangeMessages(client(failure=request.param), stub_server.url)


class TestMessages:
    def test_thin_by_default(self, changes: ChangeMessages, stub_server: StubServer) -> None:
        assert changes.push([JANE], "key") == {"an-id": Done()}

        (request,) = stub_server.received
        assert (request.method, request.path) == ("POST", "/hook")
        assert request.headers["Content-Type"] == "application/json"
        assert request.headers["webhook-id"] == "key-an-id"
        assert verified(request) == {
            "type": "contact.changed",
            "timestamp": "2026-01-27T10:00:00+00:00",
            "data": {"email_id": "an-id"},
        }

    def test_with_the_document_when_asked_for(self, stub_server: StubServer) -> None:
        ChangeMessages(client(), stub_server.url, document=True).push([JANE, GONE], "key")

        changed, deleted = map(verified, stub_server.received)
        assert changed["data"] == {"email_id": "an-id", "contact": DOCUMENT}
        assert (deleted["type"], deleted["data"]) == ("contact.deleted", {"email_id": "an-id"})
        assert datetime.fromisoformat(deleted["timestamp"]) - datetime.now(UTC) < timedelta(minutes=1)

    def test_text_of_any_script_is_signed(self, stub_server: StubServer) -> None:
        document = {"email": {**DOCUMENT["email"], "first_name": 'Zoë 🦊 "\n\\', "half a pair": "\ud83e"}}

        ChangeMessages(client(), stub_server.url, document=True).push([ContactState("an-id", document)], "key")

        assert verified(stub_server.received[0])["data"]["contact"] == document

    def test_both_secrets_sign_while_they_rotate(self, stub_server: StubServer) -> None:
        ChangeMessages(client(NEW, OLD), stub_server.url).push([JANE], "key")

        (request,) = stub_server.received
        assert verified(request, OLD) == verified(request, NEW)
        assert len(request.headers["webhook-signature"].split()) == 2
        with pytest.raises(WebhookVerificationError):
            Webhook(base64.b64encode(b"another").decode()).verify(request.body, dict(request.headers))

    def test_a_retried_message_keeps_its_id(self, changes: ChangeMessages, stub_server: StubServer) -> None:
        stub_server.reply = Reply(500)
        changes.push([JANE], "key")
        changes.push([JANE], "key")
        changes.push([JANE], "another")

        assert [request.headers["webhook-id"] for request in stub_server.received] == [
            "key-an-id",
            "key-an-id",
            "another-an-id",
        ]

    def test_cookies_are_not_kept(self, changes: ChangeMessages, stub_server: StubServer) -> None:
        stub_server.reply = Reply(200, {"Set-Cookie": "who=me"})

        for _ in range(2):
            changes.push([JANE], "key")

        assert [request.headers["Cookie"] for request in stub_server.received] == [None, None]


def at(seconds: float) -> str:
    """Return a time relative to now, as an HTTP date."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


ANSWERS: dict[str, tuple[Reply, Any]] = {
    "200": (Reply(200, body={"ok": True}), Done()),
    "200 and no JSON": (Reply(200, body=b"<h1>Thank you"), Done()),
    "202": (Reply(202), Done()),
    "204": (Reply(204), Done()),
    "redirect": (Reply(301, {"Location": "/"}), TryLater(None, "HTTP 301: redirects are not followed")),
    "400": (Reply(400), Refused("HTTP 400")),
    "401": (Reply(401), Pause("HTTP 401: the receiver does not take our signature")),
    "403": (Reply(403), Refused("HTTP 403")),
    "404": (Reply(404), Refused("HTTP 404")),
    "408": (Reply(408), TryLater(None, "HTTP 408")),
    "410": (Reply(410), Pause("HTTP 410: the receiver wants no more messages")),
    "422 that repeats what it was sent": (Reply(422, body={"error": "jane@example.com"}), Refused("HTTP 422")),
    "429": (Reply(429), SlowDown(60, "HTTP 429")),
    "429 for so long": (Reply(429, {"Retry-After": "7"}), SlowDown(7, "HTTP 429")),
    "429 for no time": (Reply(429, {"Retry-After": "0"}), SlowDown(1, "HTTP 429")),
    "429 with a huge delay": (Reply(429, {"Retry-After": "9" * 400}), SlowDown(86_400, "HTTP 429")),
    "429 until long ago": (Reply(429, {"Retry-After": at(-500)}), SlowDown(1, "HTTP 429")),
    "429 and nonsense": (Reply(429, {"Retry-After": "soon"}), SlowDown(60, "HTTP 429")),
    "500": (Reply(500), TryLater(None, "HTTP 500")),
    "502 for so long": (Reply(502, {"Retry-After": "90"}), TryLater(90, "HTTP 502")),
    "503": (Reply(503, {"Retry-After": "120"}), SlowDown(120, "HTTP 503")),
    "much more than is read": (Reply(200, body=b"x" * 200_000), Done()),
}


@pytest.mark.parametrize(("reply", "outcome"), ANSWERS.values(), ids=ANSWERS)
def test_outcomes_of_responses(reply: Reply, outcome: Any, changes: ChangeMessages, stub_server: StubServer) -> None:
    stub_server.reply = reply

    assert changes.push([JANE], "key") == {"an-id": outcome}
    assert len(stub_server.received) == 1


BROKEN = {
    "slow": "no response (ReadTimeout)",
    "closed": "no response (ConnectionError)",
    "half closed": "no response (ChunkedEncodingError)",
    "no HTTP": "no response (ConnectionError)",
}


@pytest.mark.parametrize("how", BROKEN)
def test_outcomes_without_a_response(how: str, stub_server: StubServer) -> None:
    stub_server.fails(how)
    changes = ChangeMessages(client(failure=how), stub_server.url)

    assert changes.push([JANE], "key") == {"an-id": TryLater(None, BROKEN[how])}


def test_a_date_to_wait_for() -> None:
    waits = retry_after(at(3600))

    assert waits is not None
    assert 3500 < waits <= 3600


def test_a_closed_port() -> None:
    with StubServer() as short:
        pass

    assert ChangeMessages(client(), short.url).push([JANE], "key") == {
        "an-id": TryLater(None, "no response (ConnectionError)")
    }


@pytest.mark.parametrize("status", [429, 410])
def test_a_receiver_that_stops_delays_the_remaining_messages(
    status: int, changes: ChangeMessages, stub_server: StubServer
) -> None:
    stub_server.reply = Reply(status)

    outcomes = changes.push([JANE, ContactState("another", None)], "key")

    assert list(outcomes) == ["an-id"]
    assert len(stub_server.received) == 1


def test_a_mistake_of_ours_is_not_taken_for_the_networks() -> None:
    with pytest.raises(TypeError):
        ChangeMessages(client(), "http://127.0.0.1", document=True).push(
            [ContactState("an-id", {"email": {**DOCUMENT["email"], "x": object()}})], "key"
        )


def declared(set_variable: Callable[[str, str], None], **variables: str) -> list[Any]:
    """Return the backends that the plugin declares with these settings."""
    for name, value in variables.items():
        set_variable(f"CTMS_PLUGIN_WEBHOOK_{name}", value)
    plugins = load_plugins(Settings(plugins=("webhook",)))
    return [one.value for hook in ("ctms_backends", "ctms_deletion_handlers") for one in plugins.collect(hook)]


class TestSettings:
    def test_off_without_a_url(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert declared(monkeypatch.setenv) == []
        assert declared(monkeypatch.setenv, SECRETS=OLD) == []

    def test_on_with_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (found,) = declared(
            monkeypatch.setenv, URL="https://hooks.example.com/secret-path", SECRETS=OLD, CONCURRENCY="7"
        )

        assert (found.name, found.max_batch, found.concurrency, found.timeout) == ("webhook", 1, 7, 30)
        assert found.description == "Signed messages to hooks.example.com"

    def test_plain_http_where_private_addresses_are_allowed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert declared(monkeypatch.setenv, URL="http://hooks.internal", SECRETS=OLD, ALLOW_PRIVATE="true")

    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({"URL": "https://x.org"}, "messages are signed: set CTMS_PLUGIN_WEBHOOK_SECRETS"),
            ({"URL": "x.org/hook", "SECRETS": OLD}, "CTMS_PLUGIN_WEBHOOK_URL must be a URL as in https://"),
            ({"URL": "https://me:it@x.org", "SECRETS": OLD}, "must be a URL .* without a user in it"),
            (
                {"URL": "http://x.org", "SECRETS": OLD},
                "the URL of a webhook must be https, unless .*ALLOW_PRIVATE is true",
            ),
            ({"URL": "https://x.org", "SECRETS": "tooshort"}, "CTMS_PLUGIN_WEBHOOK_SECRETS must be secrets as in"),
            ({"URL": "https://x.org", "SECRETS": "whsec_!"}, "CTMS_PLUGIN_WEBHOOK_SECRETS must be secrets as in"),
            ({"URL": "https://x.org", "SECRETS": OLD, "CONCURRENCY": "99"}, "concurrency of a backend is from 1 to 32"),
            ({"VERIFY_URL": "https://x.org", "SECRETS": OLD}, "nothing to verify: set .*ERASURE_URL too"),
        ],
    )
    def test_invalid_settings_prevent_the_start(
        self, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(OperatorError, match=said) as raised:
            declared(monkeypatch.setenv, **variables)
        assert OLD not in str(raised.value)

    def test_authorities_that_are_not_there_stop_nothing_and_are_a_warning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "authorities.pem"
        assert declared(monkeypatch.setenv, URL="https://x.org", SECRETS=OLD, CA_FILE=str(file))
        (check,) = load_plugins(Settings(plugins=("webhook",))).collect("ctms_health_checks")

        assert check.value.check() == (
            "the file of CTMS_PLUGIN_WEBHOOK_CA_FILE cannot be read (No such file or directory): no message is sent"
        )
        with pytest.raises(OSError, match="CA certificate"):
            WebhookClient([OLD], ca_file=file).post("https://x.org", "id", "kind", None, {})
        file.touch()
        assert check.value.check() is None
