"""Contacts as profiles of Braze."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ctms.hooks.comparison import differences
from ctms.hooks.manager import load_plugins
from ctms.plugins import ContactState, Done, OperatorError, Pause, Refused, SlowDown, TryLater
from ctms.settings import Settings
from ctms.testing import BackendContract, Reply, StubServer
from ctms.testing.contracts.backends import everything
from ctms_plugins.braze.backend import NoExport, Profiles
from ctms_plugins.braze.calls import BrazeBatchRefused
from ctms_plugins.braze.client import BrazeClient
from tests.plugins.braze_workspace import KEY, Workspace
from tests.waiting import timeout_of_requests

ENVIRONMENT = {"CTMS_PLUGIN_BRAZE_URL": "https://rest.example.com", "CTMS_PLUGIN_BRAZE_KEY": KEY}

MakeContact = Callable[..., dict[str, Any]]


@pytest.fixture
def workspace(stub_server: StubServer) -> Workspace:
    """Return a fake of Braze."""
    made = Workspace()
    stub_server.reply = made
    return made


@pytest.fixture
def profiles(workspace: Workspace, stub_server: StubServer) -> Profiles:  # noqa: ARG001  answers there
    """The backend, talking to it."""
    return Profiles(BrazeClient(stub_server.url, KEY, timeout_of_requests()))


def state(document: dict[str, Any]) -> ContactState:
    """Return the state of a contact."""
    return ContactState(document["email"]["email_id"], document)


class TestContract(BackendContract):
    """The contract of backends."""

    name = "braze"

    @pytest.fixture
    def ctms_environment(self) -> Mapping[str, str]:
        """The plugin is on."""
        return ENVIRONMENT

    @pytest.fixture
    def implementation(self, profiles: Profiles) -> Profiles:
        """Return a client of the fake."""
        return profiles

    @pytest.fixture(params=[*StubServer.FAILURES, "no JSON", "another's JSON", "a list"])
    def failing_implementation(self, stub_server: StubServer, request: pytest.FixtureRequest) -> Profiles:
        """The same while Braze fails."""
        wrong = {"no JSON": b"<h1>Sign in</h1>", "another's JSON": {"ok": True}, "a list": []}
        if request.param in wrong:
            stub_server.reply = Reply(200, body=wrong[request.param])
        else:
            stub_server.fails(request.param)
        return Profiles(BrazeClient(stub_server.url, KEY, timeout_of_requests(request.param)))


class TestMapping:
    def test_a_contact_is_a_profile(self, profiles: Profiles, workspace: Workspace, make_contact: MakeContact) -> None:
        contact = everything(make_contact)

        profiles.push([state(contact)], "key")

        profile = workspace.profiles[contact["email"]["email_id"]]
        custom = profile.pop("custom_attributes")
        assert profile == {
            "external_id": contact["email"]["email_id"],
            "email": contact["email"]["primary_email"],
            "first_name": "Zoë 🦊",
            "last_name": "عمر",
            "country": "CA",
            "language": "pt",
        }
        assert custom["ctms_email_lang"] == "pt-BR"
        assert custom["ctms_fxa_id"] == "an-account"
        assert custom["ctms_newsletters"] == [
            {"name": "monthly", "subscribed": False, "format": "H", "lang": "en", "unsub_reason": "too much"},
            {
                "name": "weekly",
                "subscribed": True,
                "format": "H",
                "lang": "en",
                "source": "https://example.com/signup?a=1&b=%20",
            },
        ]
        assert custom["ctms_waitlists"] == [
            {
                "name": "a-new-one",
                "subscribed": True,
                "fields": {"geo": "日本", "deep": {"a_b": [1, 2.5, {"_c": True}]}, "_": "😀"},
            },
            {"name": "vpn", "subscribed": True, "fields": {"geo": "ca"}},
        ]

    def test_removed_values_are_removed_from_the_profile(
        self, profiles: Profiles, workspace: Workspace, make_contact: MakeContact
    ) -> None:
        contact = everything(make_contact)
        less = copy.deepcopy(contact)
        less["email"] |= {"first_name": None, "mailing_country": None, "email_lang": None}
        less["fxa"]["fxa_id"] = None
        less |= {"newsletters": [], "waitlists": []}

        profiles.push([state(contact)], "key")
        profiles.push([state(less)], "another")

        profile = workspace.profiles[contact["email"]["email_id"]]
        assert {"first_name", "country", "language"}.isdisjoint(profile)
        assert "ctms_fxa_id" not in profile["custom_attributes"]
        assert profile["custom_attributes"]["ctms_newsletters"] == []
        assert differences(less, profiles.fetch([less["email"]["email_id"]])[less["email"]["email_id"]]) == []

    @pytest.mark.parametrize(("country", "there"), [("ca", "CA"), ("Canada", None), ("c1", None), ("", None)])
    def test_countries(
        self, country: str, there: str | None, profiles: Profiles, workspace: Workspace, make_contact: MakeContact
    ) -> None:
        contact = make_contact(email={"mailing_country": country})

        profiles.push([state(contact)], "key")

        assert workspace.profiles[contact["email"]["email_id"]].get("country") == there

    @pytest.mark.parametrize(
        ("resubscribe", "opted_out", "double", "sent"),
        [
            (False, True, False, "unsubscribed"),
            (False, False, True, None),
            (True, True, True, "unsubscribed"),
            (True, False, False, "subscribed"),
            (True, False, True, "opted_in"),
        ],
    )
    def test_unsubscribed_profiles_stay_unsubscribed(
        self,
        *,
        resubscribe: bool,
        opted_out: bool,
        double: bool,
        sent: str | None,
        workspace: Workspace,
        stub_server: StubServer,
        make_contact: MakeContact,
    ) -> None:
        contact = make_contact(email={"has_opted_out_of_email": opted_out, "double_opt_in": double})
        profiles = Profiles(BrazeClient(stub_server.url, KEY, timeout_of_requests()), resubscribe=resubscribe)

        profiles.push([state(contact)], "key")

        assert workspace.profiles[contact["email"]["email_id"]].get("email_subscribe") == sent

    def test_differences_are_found(self, profiles: Profiles, workspace: Workspace, make_contact: MakeContact) -> None:
        contact = everything(make_contact)
        email_id = contact["email"]["email_id"]
        profiles.push([state(contact)], "key")
        workspace.profiles[email_id] |= {"first_name": "Zoe", "email_subscribe": "unsubscribed"}
        workspace.profiles[email_id]["custom_attributes"]["ctms_newsletters"].pop()

        found = differences(contact, profiles.fetch([email_id])[email_id])

        assert found == ["email.has_opted_out_of_email", "email.first_name", "newsletters.weekly"]

    def test_texts_that_are_too_long_are_cut_and_not_compared(
        self, profiles: Profiles, workspace: Workspace, make_contact: MakeContact
    ) -> None:
        contact = make_contact(newsletters=[{"name": "weekly", "subscribed": True, "unsub_reason": "x" * 300}])
        email_id = contact["email"]["email_id"]

        profiles.push([state(contact)], "key")

        (sent,) = workspace.profiles[email_id]["custom_attributes"]["ctms_newsletters"]
        assert sent["unsub_reason"] == "x" * 255
        assert differences(contact, profiles.fetch([email_id])[email_id]) == []


class TestCalls:
    def test_deletions_go_fifty_at_a_time(self, profiles: Profiles, stub_server: StubServer) -> None:
        ids = [f"id-{number}" for number in range(75)]

        assert profiles.push([ContactState(one, None) for one in ids], "key") == dict.fromkeys(ids, Done())
        assert [len(request.json["external_ids"]) for request in stub_server.received] == [50, 25]

    def test_many_are_exported_fifty_at_a_time(
        self, profiles: Profiles, stub_server: StubServer, make_contact: MakeContact
    ) -> None:
        contact = make_contact()
        profiles.push([state(contact)], "key")

        found = profiles.fetch([*(f"id-{number}" for number in range(60)), contact["email"]["email_id"]])

        assert list(found) == [contact["email"]["email_id"]]
        assert [request.path for request in stub_server.received[1:]] == ["/users/export/ids"] * 2

    def test_an_export_that_fails_is_no_export(self, profiles: Profiles, stub_server: StubServer) -> None:
        for reply in (Reply(500), Reply(400, body={"message": "no"}), Reply(200, body={"message": "success"})):
            stub_server.reply = reply
            with pytest.raises(NoExport):
                profiles.fetch(["an-id"])


A, B = ContactState("a", None), ContactState("b", None)
SOME_WRONG = {"message": "success", "errors": [{"type": "invalid id", "input_array": "external_ids", "index": 1}]}
ANSWERS: dict[str, tuple[Reply, Any]] = {
    "201": (Reply(201, body={"message": "success"}), {"a": Done(), "b": Done()}),
    "some are wrong": (Reply(201, body=SOME_WRONG), {"a": Done(), "b": Refused("Braze: invalid id")}),
    "nothing is taken, some are wrong": (
        Reply(400, body={**SOME_WRONG, "message": "fatal"}),
        {"a": TryLater(1, "sent together with refused entries"), "b": Refused("Braze: invalid id")},
    ),
    "401": (Reply(401), dict.fromkeys("ab", Pause("HTTP 401: Braze does not take the key"))),
    "403": (Reply(403), dict.fromkeys("ab", Pause("HTTP 403: the key may not do this"))),
    "404": (Reply(404), dict.fromkeys("ab", Pause("HTTP 404: CTMS_PLUGIN_BRAZE_URL is no REST endpoint of Braze"))),
    "429": (Reply(429), dict.fromkeys("ab", SlowDown(60, "HTTP 429"))),
    "429 for so long": (Reply(429, {"Retry-After": "7"}), dict.fromkeys("ab", SlowDown(7, "HTTP 429"))),
    "429 until long ago": (Reply(429, {"X-RateLimit-Reset": "1000"}), dict.fromkeys("ab", SlowDown(1, "HTTP 429"))),
    "429 and nonsense": (Reply(429, {"X-RateLimit-Reset": "soon"}), dict.fromkeys("ab", SlowDown(60, "HTTP 429"))),
    "500": (Reply(500), dict.fromkeys("ab", TryLater(None, "HTTP 500"))),
    "redirect": (Reply(302, {"Location": "/"}), dict.fromkeys("ab", TryLater(None, "HTTP 302"))),
}


@pytest.mark.parametrize(("reply", "outcomes"), ANSWERS.values(), ids=ANSWERS)
def test_outcomes_of_responses(reply: Reply, outcomes: Any, profiles: Profiles, stub_server: StubServer) -> None:
    stub_server.reply = reply

    assert profiles.push([A, B], "key") == outcomes


ALL_WRONG: dict[str, tuple[Reply, str]] = {
    "fatal": (Reply(400, body={"message": "Valid data must be provided"}), "HTTP 400: Valid data must be provided"),
    "no JSON": (Reply(413, body=b"too large"), "HTTP 413"),
    "no place": (Reply(201, body={"message": "success", "errors": ["odd"]}), "HTTP 201: success"),
    "an odd place": (Reply(400, body={"message": "m", "errors": [{"type": "t", "index": 9}]}), "HTTP 400: m"),
    "a person": (
        Reply(400, body={"message": 'jane@example.com is not like "Jane Doe", is it'}),
        "HTTP 400: … is not like …, is it",
    ),
}


@pytest.mark.parametrize(("reply", "reason"), ALL_WRONG.values(), ids=ALL_WRONG)
def test_an_error_without_a_contact_bisects_the_batch(
    reply: Reply, reason: str, profiles: Profiles, stub_server: StubServer
) -> None:
    stub_server.reply = reply

    with pytest.raises(BrazeBatchRefused):
        profiles.push([A, B], "key")
    assert profiles.push([A], "key") == {"a": Refused(reason)}


class TestLimits:
    def test_after_the_last_call_nothing_is_sent_until_the_reset(
        self, profiles: Profiles, stub_server: StubServer
    ) -> None:
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 300)}
        stub_server.reply = Reply(201, headers, {"message": "success"})

        first, second = profiles.push([A], "key"), profiles.push([A], "key")

        assert first == {"a": Done()}
        assert isinstance(second["a"], SlowDown)
        assert 200 < second["a"].after <= 300
        assert len(stub_server.received) == 1
        profiles.push([], "key")
        with pytest.raises(NoExport):
            profiles.fetch(["a"])
        assert len(stub_server.received) == 2, "each path has a limit of its own"

    def test_a_limit_that_is_hit(self, profiles: Profiles, stub_server: StubServer) -> None:
        stub_server.reply = Reply(429, {"X-RateLimit-Reset": str(int(time.time()) + 300)})

        outcome = profiles.push([A], "key")["a"]

        assert isinstance(outcome, SlowDown)
        assert 200 < outcome.after <= 300


class TestSettings:
    def declared(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[Any]:
        """Return the plugin's declarations."""
        for name, value in variables.items():
            monkeypatch.setenv(f"CTMS_PLUGIN_BRAZE_{name}", value)
        return [one.value for one in load_plugins(Settings(plugins=("braze",))).collect("ctms_backends")]

    def test_off_without_a_workspace(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.declared(monkeypatch) == []

    def test_on_with_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        (found,) = self.declared(monkeypatch, URL="https://rest.iad-01.braze.com/", KEY=KEY, BATCH="50")

        assert (found.name, found.max_batch, found.concurrency, found.timeout) == ("braze", 50, 2, 80)
        assert found.description == "Profiles of rest.iad-01.braze.com"

    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({"URL": "https://x.org"}, "set both CTMS_PLUGIN_BRAZE_URL and CTMS_PLUGIN_BRAZE_KEY, or neither"),
            ({"KEY": KEY}, "set both CTMS_PLUGIN_BRAZE_URL and CTMS_PLUGIN_BRAZE_KEY, or neither"),
            ({"URL": "rest.x.org", "KEY": KEY}, "URL must be the REST endpoint"),
            ({"URL": "https://x.org/users/track", "KEY": KEY}, "URL must be the REST endpoint"),
            ({"URL": "https://x.org", "KEY": KEY, "BATCH": "76"}, "BATCH must be from 1 to 75"),
        ],
    )
    def test_invalid_settings_prevent_the_start(
        self, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(OperatorError, match=said) as raised:
            self.declared(monkeypatch, **variables)
        assert KEY not in str(raised.value)


def test_the_key_is_not_overridden_by_netrc(
    profiles: Profiles, stub_server: StubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))

    assert profiles.push([A], "key") == {"a": Done()}
    assert stub_server.received[0].headers["Authorization"] == f"Bearer {KEY}"
