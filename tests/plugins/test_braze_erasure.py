"""Deletion of every profile with an address in Braze."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from flask import Flask

from ctms.hooks.manager import load_plugins
from ctms.plugins import ContactState, Done, Identities, Pause, Refused, SlowDown, TryLater
from ctms.settings import Settings
from ctms.testing import DeletionHandlerContract, ReceivedRequest, Reply, StubServer
from ctms.testing.contracts.deletion_handlers import stranger
from ctms_plugins.braze.backend import Profiles
from ctms_plugins.braze.calls import BrazeBatchRefused
from ctms_plugins.braze.client import BrazeClient
from ctms_plugins.braze.erasure import LEFT, ProfileErasures, find_existing
from tests.plugins.braze_workspace import KEY, Workspace
from tests.waiting import TIMEOUT_IN_SECONDS, timeout_of_requests

MakeContact = Callable[..., dict[str, Any]]

JANE, JOE = stranger(), stranger()
JANES, JOES = str(JANE["email_id"]), str(JOE["email_id"])
LIVING = str(stranger()["email_id"])
"""The id of a contact that exists."""

OURS = {"custom_attributes": {"ctms_create_timestamp": "x"}}
"""What the profile of a contact has."""


@pytest.fixture
def workspace(stub_server: StubServer) -> Workspace:
    """Return a fake of Braze."""
    made = Workspace()
    stub_server.reply = made
    return made


@pytest.fixture
def erasures(workspace: Workspace, stub_server: StubServer) -> ProfileErasures:  # noqa: ARG001  answers there
    """The deletion handler, talking to it."""
    client = BrazeClient(stub_server.url, KEY, timeout_of_requests())
    return ProfileErasures(client, patience=TIMEOUT_IN_SECONDS, find_existing={LIVING}.intersection)


def add(workspace: Workspace, person: Identities, number: int, **more: Any) -> None:
    """Add so many profiles with the person's address that others created."""
    email = str(person["primary_email"]).upper()
    workspace.strangers += [{"email": email, "braze_id": f"b-{n}", **more} for n in range(number)]


class TestContract(DeletionHandlerContract):
    """The contract of deletion handlers."""

    name = "braze"

    @pytest.fixture
    def ctms_environment(self) -> Mapping[str, str]:
        """The plugin is on."""
        return {"CTMS_PLUGIN_BRAZE_URL": "https://rest.example.com", "CTMS_PLUGIN_BRAZE_KEY": KEY}

    @pytest.fixture
    def implementation(self, erasures: ProfileErasures) -> ProfileErasures:
        """Return a client of the fake."""
        return erasures

    @pytest.fixture(params=[*StubServer.FAILURES, "no JSON", "another's JSON", "a list"])
    def failing_implementation(self, stub_server: StubServer, request: pytest.FixtureRequest) -> ProfileErasures:
        """The same while Braze fails."""
        wrong = {"no JSON": b"<h1>Sign in</h1>", "another's JSON": {"ok": True}, "a list": []}
        if request.param in wrong:
            stub_server.reply = Reply(200, body=wrong[request.param])
        else:
            stub_server.fails(request.param)
        client = BrazeClient(stub_server.url, KEY, timeout_of_requests(request.param))
        return ProfileErasures(client, patience=TIMEOUT_IN_SECONDS)


class TestErase:
    def test_exactly_the_profiles_with_the_address_are_deleted(
        self, erasures: ProfileErasures, workspace: Workspace, stub_server: StubServer, make_contact: MakeContact
    ) -> None:
        ours, kept = make_contact(), make_contact()
        states = [ContactState(one["email"]["email_id"], one) for one in (ours, kept)]
        Profiles(BrazeClient(stub_server.url, KEY, timeout_of_requests())).push(states, "key")
        person = stranger(email_id=ours["email"]["email_id"], primary_email=ours["email"]["primary_email"])
        add(workspace, person, 2)
        add(workspace, person, 1, external_id="another-app's")

        assert erasures.verify([person]) == {person["email_id"]: Refused(LEFT)}
        assert erasures.erase([person]) == {person["email_id"]: Done()}

        assert workspace.strangers == []
        assert list(workspace.profiles) == [kept["email"]["email_id"]]
        assert erasures.verify([person]) == {person["email_id"]: Done()}

    def test_a_domain_that_others_have_sent_as_a_labels(
        self, erasures: ProfileErasures, workspace: Workspace, stub_server: StubServer
    ) -> None:
        person = stranger(primary_email="jane@bücher.example.com")
        key = str(person["email_id"])
        add(workspace, person, 2)
        add(workspace, stranger(primary_email="jane@xn--bcher-kva.example.com"), 1)
        refused = {"message": "invalid", "errors": [{"type": "no", "input_array": "email_addresses", "index": 1}]}

        assert erasures.verify([person]) == {key: Refused(LEFT)}
        assert erasures.erase([person, JOE]) == {key: Done(), JOES: Done()}
        assert workspace.strangers == []
        assert erasures.verify([person]) == {key: Done()}

        stub_server.reply = Reply(400, body=refused)
        found = erasures.erase([person, JOE])
        assert isinstance(found[key], Refused)

    def test_of_the_account_s_address_nothing_goes(self, erasures: ProfileErasures, workspace: Workspace) -> None:
        add(workspace, stranger(primary_email="fxa@example.com"), 1)

        erasures.erase([stranger(fxa_primary_email="fxa@example.com")])

        assert len(workspace.strangers) == 1, "it may be another contact's own"

    def test_the_format_of_a_call(self, erasures: ProfileErasures, stub_server: StubServer) -> None:
        erasures.erase([JANE, JOE])

        (request,) = stub_server.received
        assert request.path == "/users/delete"
        assert request.json == {
            "email_addresses": [
                {"email": one["primary_email"], "prioritization": ["most_recently_updated"]} for one in (JANE, JOE)
            ]
        }

    def test_more_than_one_call_can_take(
        self, erasures: ProfileErasures, workspace: Workspace, stub_server: StubServer
    ) -> None:
        people = [stranger() for _ in range(60)]
        for person in people:
            add(workspace, person, 1)

        assert set(erasures.erase(people).values()) == {Done()}

        assert [len(one.json["email_addresses"]) for one in stub_server.received] == [50, 50, 10, 10]
        assert workspace.strangers == []

    def test_more_profiles_than_rounds_go_the_next_time(self, erasures: ProfileErasures, workspace: Workspace) -> None:
        add(workspace, JANE, 7)

        assert erasures.erase([JANE, JOE]) == {JANES: TryLater(None, LEFT), JOES: Done()}
        assert len(workspace.strangers) == 2
        assert erasures.erase([JANE]) == {JANES: Done()}
        assert workspace.strangers == []

    def test_queued_deletions_are_checked_with_an_export(
        self, erasures: ProfileErasures, workspace: Workspace, stub_server: StubServer
    ) -> None:
        stub_server.reply = lambda one: (
            Reply(200, body={"deleted": 2, "message": "success"}) if one.path == "/users/delete" else workspace(one)
        )
        add(workspace, JANE, 1)

        assert erasures.erase([JANE, JOE]) == {JANES: TryLater(None, LEFT), JOES: Done()}

    def test_one_without_an_address_has_no_profile(self, erasures: ProfileErasures, stub_server: StubServer) -> None:
        nobody = {**JANE, "primary_email": None}

        assert erasures.erase([nobody]) == erasures.verify([nobody]) == {JANES: Done()}
        assert stub_server.received == []


class TestVerify:
    @pytest.mark.parametrize(
        ("profile", "left"),
        [
            pytest.param({}, True, id="unidentified"),
            pytest.param({"external_id": "another-app's"}, True, id="another's"),
            pytest.param({"external_id": JANES, **OURS}, True, id="the contact's"),
            pytest.param({"external_id": JOES, **OURS}, True, id="that of a contact that was merged into it"),
            pytest.param({"external_id": LIVING, **OURS}, False, id="that of a new contact"),
            pytest.param({"external_id": LIVING}, True, id="another's with the id of a contact"),
        ],
    )
    def test_whose_profile_is_left(
        self, erasures: ProfileErasures, workspace: Workspace, profile: dict[str, Any], *, left: bool
    ) -> None:
        add(workspace, JANE, 1, **profile)

        assert erasures.verify([JANE]) == {JANES: Refused(LEFT) if left else Done()}

    def test_a_contact_that_was_created_again_keeps_its_profile(
        self, erasures: ProfileErasures, workspace: Workspace
    ) -> None:
        person = {**JANE, "email_id": LIVING}
        add(workspace, person, 1, external_id=LIVING, **OURS)

        assert erasures.verify([person]) == {LIVING: Done()}

    def test_who_exists_is_looked_up(self, app: Flask, make_contact: MakeContact) -> None:
        existing = make_contact()["email"]["email_id"]

        with app.app_context():
            assert find_existing([existing, JANES, "another-app's"]) == {existing}

    def test_exports_end_in_time(self, workspace: Workspace, stub_server: StubServer) -> None:
        def slow(request: ReceivedRequest) -> Reply:
            time.sleep(1)
            return workspace(request)

        stub_server.reply = slow
        people = [stranger() for _ in range(10)]

        client = BrazeClient(stub_server.url, KEY, timeout_of_requests())
        found = list(ProfileErasures(client, patience=2).verify(people).values())

        assert found[0] == Done()
        assert found[-1] == TryLater(1, "not exported yet")
        assert len(stub_server.received) <= 3

    def test_nothing_is_asked_after_a_limit(self, erasures: ProfileErasures, stub_server: StubServer) -> None:
        stub_server.reply = Reply(429, {"Retry-After": "7"})

        assert erasures.verify([JANE, JOE]) == dict.fromkeys((JANES, JOES), SlowDown(7, "HTTP 429"))
        assert len(stub_server.received) == 1

    def test_a_refused_contact_does_not_affect_the_others(
        self, erasures: ProfileErasures, workspace: Workspace, stub_server: StubServer
    ) -> None:
        stub_server.reply = lambda one: (
            Reply(400, body={"message": "invalid"})
            if one.json["email_address"] == JANE["primary_email"]
            else workspace(one)
        )

        assert erasures.verify([JANE, JOE]) == {JANES: Refused("HTTP 400: invalid"), JOES: Done()}


INVALID = {"message": "success", "deleted": 0, "errors": [{"type": "invalid email", "index": 1}]}
ANSWERS: dict[str, tuple[Reply, Any]] = {
    "some are wrong": (Reply(200, body=INVALID), {JANES: Done(), JOES: Refused("Braze: invalid email")}),
    "401": (Reply(401), dict.fromkeys((JANES, JOES), Pause("HTTP 401: Braze does not take the key"))),
    "429": (Reply(429, {"Retry-After": "7"}), dict.fromkeys((JANES, JOES), SlowDown(7, "HTTP 429"))),
    "500": (Reply(500), dict.fromkeys((JANES, JOES), TryLater(None, "HTTP 500"))),
}


@pytest.mark.parametrize(("reply", "outcomes"), ANSWERS.values(), ids=ANSWERS)
def test_outcomes_of_responses(reply: Reply, outcomes: Any, erasures: ProfileErasures, stub_server: StubServer) -> None:
    stub_server.reply = reply

    assert erasures.erase([JANE, JOE]) == outcomes


def test_an_error_without_a_contact_bisects_the_batch(erasures: ProfileErasures, stub_server: StubServer) -> None:
    stub_server.reply = Reply(400, body={"message": "no"})

    with pytest.raises(BrazeBatchRefused):
        erasures.erase([JANE, JOE])
    assert erasures.erase([JANE]) == {JANES: Refused("HTTP 400: no")}


def test_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_plugins(Settings(plugins=("braze",))).collect("ctms_deletion_handlers") == ()
    for name, value in {"URL": "https://x.org", "KEY": KEY, "VERIFY_AFTER_IN_SECONDS": "60"}.items():
        monkeypatch.setenv(f"CTMS_PLUGIN_BRAZE_{name}", value)

    (found,) = load_plugins(Settings(plugins=("braze",))).collect("ctms_deletion_handlers")

    assert (found.value.name, found.value.verifies, found.value.verify_after) == ("braze", True, 60)
    assert (found.value.max_batch, found.value.timeout) == (50, 180)
