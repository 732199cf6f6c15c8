"""Signed erasure requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ctms.hooks.manager import load_plugins
from ctms.plugins import Accepted, Done, Pause, Refused, SlowDown, TryLater
from ctms.settings import Settings
from ctms.testing import DeletionHandlerContract, ReceivedRequest, Reply, StubServer
from ctms.testing.contracts.deletion_handlers import stranger
from ctms_plugins.webhook.erasure import ErasureMessages, VerifiedErasureMessages, WebhookBatchRefused
from tests.plugins.webhook_client import OLD, client, verified

JANE, JOE = stranger(fxa_id="jane's"), stranger()


def looks(request: ReceivedRequest) -> Reply:
    """Answer as a receiver that has nothing left."""
    return Reply(200, body={"remaining": []}) if request.path == "/verify" else Reply(204)


@pytest.fixture
def erasures(stub_server: StubServer) -> VerifiedErasureMessages:
    """The deletion handler, connected to the stub server."""
    stub_server.reply = looks
    return handler(stub_server)


def handler(stub_server: StubServer, failure: str = "") -> VerifiedErasureMessages:
    """Connect a deletion handler to the stub server, which fails in this way."""
    return VerifiedErasureMessages(client(failure=failure), f"{stub_server.url}/erase", f"{stub_server.url}/verify")


class TestContract(DeletionHandlerContract):
    """The contract of deletion handlers."""

    name = "webhook"

    @pytest.fixture
    def ctms_environment(self) -> Mapping[str, str]:
        """The plugin is on."""
        urls = {"ERASURE_URL": "https://x.org/erase", "VERIFY_URL": "https://x.org/verify", "SECRETS": OLD}
        return {f"CTMS_PLUGIN_WEBHOOK_{name}": value for name, value in urls.items()}

    @pytest.fixture
    def implementation(self, erasures: VerifiedErasureMessages) -> VerifiedErasureMessages:
        """Posts here instead of to the given URL."""
        return erasures

    @pytest.fixture(params=[*StubServer.FAILURES, "no JSON"])
    def failing_implementation(
        self, stub_server: StubServer, request: pytest.FixtureRequest
    ) -> VerifiedErasureMessages:
        """The handler, connected to a stub server that fails."""
        if request.param == "no JSON":
            stub_server.reply = lambda one: Reply(200 if one.path == "/verify" else 500, body=b"<h1>Sign in</h1>")
        else:
            stub_server.fails(request.param)
        return handler(stub_server, request.param)


def test_one_message_has_the_identities_of_all(erasures: ErasureMessages, stub_server: StubServer) -> None:
    assert erasures.erase([JANE, JOE, JANE]) == Done()

    (request,) = stub_server.received
    message = verified(request)
    assert message["type"] == "contact.erased"
    assert message["data"] == {"contacts": [JANE, JOE]}


def test_each_attempt_has_an_id_of_its_own(erasures: ErasureMessages, stub_server: StubServer) -> None:
    for _ in range(2):
        erasures.erase([JANE])

    assert len({request.headers["webhook-id"] for request in stub_server.received}) == 2


ANSWERS: dict[str, tuple[Reply, Any]] = {
    "200": (Reply(200, body=b"thank you"), Done()),
    "202": (Reply(202), Accepted(3600)),
    "202 for so long": (Reply(202, {"Retry-After": "60"}), Accepted(60)),
    "404, since an address may be misspelt": (Reply(404), Refused("HTTP 404")),
    "410": (Reply(410), Pause("HTTP 410: the receiver wants no more messages")),
    "429": (Reply(429, {"Retry-After": "7"}), SlowDown(7, "HTTP 429")),
    "500": (Reply(500), TryLater(None, "HTTP 500")),
}


@pytest.mark.parametrize(("reply", "outcome"), ANSWERS.values(), ids=ANSWERS)
def test_outcomes_of_responses(reply: Reply, outcome: Any, erasures: ErasureMessages, stub_server: StubServer) -> None:
    stub_server.reply = reply

    assert erasures.erase([JANE]) == outcome


def test_several_that_are_refused_are_tried_in_halves(erasures: ErasureMessages, stub_server: StubServer) -> None:
    stub_server.reply = Reply(422)

    with pytest.raises(WebhookBatchRefused, match="HTTP 422"):
        erasures.erase([JANE, JOE])
    assert erasures.erase([JANE, JANE]) == Refused("HTTP 422")


ID = str(JANE["email_id"])
LOOKED: dict[str, tuple[Reply, Any]] = {
    "204": (Reply(204), Done()),
    "nothing": (Reply(200, body={"remaining": []}), {ID: Done(), str(JOE["email_id"]): Done()}),
    "something": (
        Reply(200, body={"remaining": [ID]}),
        {ID: Refused("the receiver still has data"), str(JOE["email_id"]): Done()},
    ),
    "still in progress": (Reply(202, {"Retry-After": "60"}), TryLater(60, "still in progress")),
    "a page": (Reply(200, body=b"<h1>Sign in</h1>"), TryLater(None, "a response without the list `remaining`")),
    "a list": (Reply(200, body=[]), TryLater(None, "a response without the list `remaining`")),
    "another object": (Reply(200, body={"remaining": 0}), TryLater(None, "a response without the list `remaining`")),
    "500": (Reply(500), TryLater(None, "HTTP 500")),
}


@pytest.mark.parametrize(("reply", "outcome"), LOOKED.values(), ids=LOOKED)
def test_only_explicit_responses_confirm(
    reply: Reply, outcome: Any, erasures: VerifiedErasureMessages, stub_server: StubServer
) -> None:
    stub_server.reply = reply

    assert erasures.verify([JANE, JOE]) == outcome
    assert verified(stub_server.received[0])["type"] == "contact.erased.verify"


def declared(set_variable: Callable[[str, str], None], **variables: str) -> Any:
    """Return the deletion handler that the plugin declares with these settings."""
    for name, value in variables.items():
        set_variable(f"CTMS_PLUGIN_WEBHOOK_{name}", value)
    (found,) = load_plugins(Settings(plugins=("webhook",))).collect("ctms_deletion_handlers")
    return found.value


def test_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    found = declared(monkeypatch.setenv, ERASURE_URL="https://x.org/erase", SECRETS=OLD)
    assert (found.name, found.verifies, found.description) == ("webhook", False, "Signed messages to x.org")

    found = declared(monkeypatch.setenv, VERIFY_URL="https://x.org/verify", VERIFY_AFTER_IN_SECONDS="60")
    assert (found.verifies, found.verify_after) == (True, 60)
