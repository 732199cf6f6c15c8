"""`/newsletters`, and writers that obey `CTMS_NEWSLETTERS`."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from ctms.clients.tokens import tokens
from ctms.contacts.newsletter_rules import NewsletterRegistry
from ctms.database.engine import db
from ctms.plugins import Newsletter, hookimpl
from ctms.settings import NewslettersMode, Settings
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.plugins import points_of
from tests.conftest import empty_database
from tests.contacts.factories import minimal
from tests.http import Answer, ApiClient, assert_error
from tests.sessions import wait_until_someone_waits

Body = dict[str, Any]

NAME_OF_SECOND: list[str | int] = ["body", "newsletters", 1, "name"]


class News:
    """A plugin with an active and a retired newsletter."""

    @hookimpl
    def ctms_newsletters(self) -> list[Newsletter]:
        return [
            Newsletter(
                slug="weekly",
                title="The weekly",
                description="Every Monday.",
                languages=("en", "pt-BR"),
                requires_double_opt_in=True,
                vendor_ids={"braze": "7f3c", "sfmc": "WEEKLY"},
            ),
            Newsletter(slug="old", title="Old news", active=False),
        ]


NEWS = News()


@pytest.fixture
def mode() -> NewslettersMode:
    """Return the value of `CTMS_NEWSLETTERS`."""
    return "enforce"


@pytest.fixture(scope="module")
def apps_by_mode(settings: Settings) -> Iterator[Callable[[NewslettersMode], Apps]]:
    made: dict[NewslettersMode, Apps] = {}

    def get(mode: NewslettersMode) -> Apps:
        if mode not in made:
            made[mode] = Apps(replace(settings, newsletters=mode))
        return made[mode]

    yield get
    for apps in made.values():
        apps.release()


@pytest.fixture
def app(apps_by_mode: Callable[[NewslettersMode], Apps], mode: NewslettersMode) -> Iterator[Flask]:
    with rolled_back(apps_by_mode(mode).get(points_of([NEWS]))) as running:
        yield running


@pytest.fixture
def unchecked(app: Flask) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which the app accepts any subscription, as before a newsletter retired."""

    @contextmanager
    def accept_all() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(app.extensions, "ctms.newsletter_registry", NewsletterRegistry([]))
            yield

    return accept_all


def subscriptions(answer: Answer) -> dict[str, bool]:
    """Return the state of each newsletter of a contact."""
    assert answer.status_code < 300, answer.text
    return {one["name"]: one["subscribed"] for one in answer.json["newsletters"]}


def counted(anonymous: ApiClient) -> dict[str, float]:
    """Return the counters by cause and outcome."""
    series = r'^ctms_unavailable_newsletter_subscriptions_total\{cause="(.+)",outcome="(.+)"\} (\S+)$'
    found = re.findall(series, anonymous.get("/metrics").text, re.MULTILINE)
    assert len(found) == 4
    return {f"{cause} {outcome}": float(number) for cause, outcome, number in found}


def growth(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items() if value != before[name]}


class TestList:
    @pytest.mark.parametrize("mode", ["off", "enforce"])
    def test_lists_all_members_by_slug(self, api: ApiClient) -> None:
        old, weekly = api.get("/newsletters").json

        assert weekly == {
            "slug": "weekly",
            "title": "The weekly",
            "description": "Every Monday.",
            "languages": ["en", "pt-BR"],
            "active": True,
            "requires_double_opt_in": True,
            "vendor_ids": {"braze": "7f3c", "sfmc": "WEEKLY"},
            "plugin": weekly["plugin"],
        }
        assert old == {
            "slug": "old",
            "title": "Old news",
            "description": "",
            "languages": [],
            "active": False,
            "requires_double_opt_in": False,
            "vendor_ids": {},
            "plugin": weekly["plugin"],
        }

    def test_needs_the_permission_to_view_contacts(
        self, make_client: Callable[..., ApiClient], anonymous: ApiClient
    ) -> None:
        assert make_client("view_contacts").get("/newsletters").status_code == 200
        assert_error(make_client("manage_contacts").get("/newsletters"), 403, "Permission(s) required: view_contacts")
        assert_error(anonymous.get("/newsletters"), 401)

    def test_openapi_lists_the_active_ones_at_the_name_in_requests(self, api: ApiClient) -> None:
        schemas = api.get("/openapi.json").json["components"]["schemas"]

        for entry in ("NewsletterInput", "NewsletterPatch"):
            name = schemas[entry]["properties"]["name"]
            assert name["x-extensible-enum"] == ["weekly"]
            assert "GET /newsletters" in name["description"]
            assert "enum" not in name
        assert "x-extensible-enum" not in schemas["Newsletter"]["properties"]["name"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("unheard-of", "newsletter_unknown"), ("Weekly", "newsletter_unknown"), ("old", "newsletter_retired")],
)
class TestNewSubscriptions:
    """New subscriptions to newsletters that take none, by each writer."""

    @staticmethod
    def assert_refused(answer: Answer, kind: str) -> None:
        (problem,) = assert_error(answer, 422, at=[NAME_OF_SECOND])["detail"]
        assert problem["type"] == kind

    def entries(self, name: str) -> list[Body]:
        return [{"name": "weekly"}, {"name": name}, {"name": f"{name}-2", "subscribed": False}]

    def test_post(self, api: ApiClient, name: str, kind: str) -> None:
        contact = {**minimal(), "newsletters": self.entries(name)}

        self.assert_refused(api.post("/ctms", contact), kind)

        assert api.get(f"/ctms?primary_email={contact['email']['primary_email']}").json == []
        del contact["newsletters"][1]
        assert subscriptions(api.post("/ctms", contact)) == {"weekly": True, f"{name}-2": False}

    def test_put(self, api: ApiClient, name: str, kind: str) -> None:
        stored = api.post("/ctms", minimal()).json
        path = f"/ctms/{stored['email']['email_id']}"

        self.assert_refused(api.put(path, {**stored, "newsletters": self.entries(name)}), kind)

        assert api.get(path).json == stored

    def test_put_of_a_new_contact(self, api: ApiClient, name: str, kind: str) -> None:
        email_id = "93db83d4-4119-4e0c-af87-a713786fa81d"

        body = {**minimal(email_id=email_id), "newsletters": self.entries(name)}

        self.assert_refused(api.put(f"/ctms/{email_id}", body), kind)
        assert_error(api.get(f"/ctms/{email_id}"), 404)

    def test_patch(self, api: ApiClient, name: str, kind: str) -> None:
        stored = api.post("/ctms", minimal()).json
        path = f"/ctms/{stored['email']['email_id']}"

        for entry in ({"name": name}, {"name": name, "subscribed": True}):
            patch = {"email": {"first_name": "Jane"}, "newsletters": [{"name": "weekly"}, entry]}
            self.assert_refused(api.patch(path, patch), kind)

        assert api.get(path).json == stored

    def test_are_not_reported_to_callers_without_the_permission(
        self, make_client: Callable[..., ApiClient], api: ApiClient, name: str, kind: str
    ) -> None:
        path = f"/ctms/{api.post('/ctms', minimal()).json['email']['email_id']}"
        viewer = make_client("view_contacts")

        assert kind
        assert_error(viewer.patch(path, {"newsletters": [{"name": name}]}), 403)
        assert_error(viewer.post("/ctms", {**minimal(), "newsletters": [{"name": name}]}), 403)


def test_a_patch_of_an_unknown_contact_is_not_found(api: ApiClient) -> None:
    path = "/ctms/93db83d4-4119-4e0c-af87-a713786fa81d"

    assert_error(api.patch(path, {"newsletters": [{"name": "old"}]}), 404)


def test_all_entries_at_fault_are_named(api: ApiClient) -> None:
    entries = [{"name": "old"}, {"name": "weekly"}, {"name": "other"}]

    answer = api.post("/ctms", {**minimal(), "newsletters": entries})

    assert_error(answer, 422, at=[["body", "newsletters", 0, "name"], ["body", "newsletters", 2, "name"]])


@pytest.mark.parametrize("name", ["old", "unheard-of"])
class TestStoredSubscriptions:
    """Subscriptions that were stored before their newsletter retired, or before it had to be declared."""

    @pytest.fixture
    def contact(self, api: ApiClient, unchecked: Callable[[], AbstractContextManager[None]], name: str) -> Body:
        with unchecked():
            answer = api.post("/ctms", {**minimal(), "newsletters": [{"name": name}, {"name": "weekly"}]})
        contact: Body = answer.json
        assert subscriptions(answer) == {name: True, "weekly": True}
        return contact

    @pytest.fixture
    def path(self, contact: Body) -> str:
        return f"/ctms/{contact['email']['email_id']}"

    def test_can_be_read_and_sent_again(self, api: ApiClient, contact: Body, path: str, name: str) -> None:
        assert api.get(path).json == contact

        assert subscriptions(api.put(path, contact)) == {name: True, "weekly": True}
        assert subscriptions(api.patch(path, {"newsletters": [{"name": name}]})) == {name: True, "weekly": True}
        changed = api.patch(path, {"newsletters": [{"name": name, "subscribed": True, "lang": "de"}]}).json
        assert {one["name"]: one["lang"] for one in changed["newsletters"]} == {name: "de", "weekly": "en"}

    def test_the_same_contact_can_be_posted_again(self, api: ApiClient, contact: Body) -> None:
        assert api.post("/ctms", contact).status_code == 200

    def test_a_conflict_is_one(self, api: ApiClient, contact: Body, name: str) -> None:
        other = {**minimal(primary_email=contact["email"]["primary_email"]), "newsletters": [{"name": name}]}

        assert_error(api.post("/ctms", other), 409)

    def test_a_null_counts_as_subscribed(self, app: Flask, api: ApiClient, contact: Body, path: str, name: str) -> None:
        assert app
        db.session.execute(
            text("UPDATE newsletters SET subscribed = NULL WHERE email_id = :id"), {"id": contact["email"]["email_id"]}
        )
        db.session.commit()

        answer = api.patch(path, {"newsletters": [{"name": name, "subscribed": True}]})

        assert subscriptions(answer) == {name: True, "weekly": True}

    @pytest.mark.parametrize("how", ["patch", "keyword", "put"])
    def test_can_be_unsubscribed_and_then_not_subscribed_again(
        self, api: ApiClient, contact: Body, path: str, name: str, how: str
    ) -> None:
        if how == "put":
            left = api.put(path, {**contact, "newsletters": [{"name": name, "subscribed": False}]})
        else:
            patch = "UNSUBSCRIBE" if how == "keyword" else [{"name": name, "subscribed": False}]
            left = api.patch(path, {"newsletters": patch})
        assert subscriptions(left)[name] is False

        touched = api.patch(path, {"newsletters": [{"name": name, "unsub_reason": "done"}]})
        assert subscriptions(touched)[name] is False
        place: list[list[str | int]] = [["body", "newsletters", 0, "name"]]
        assert_error(api.patch(path, {"newsletters": [{"name": name, "subscribed": True}]}), 422, at=place)
        assert_error(api.put(path, {**contact, "newsletters": [{"name": name}]}), 422, at=place)
        assert subscriptions(api.get(path))[name] is False

    def test_a_merge_moves_them(self, api: ApiClient, contact: Body, name: str) -> None:
        target = api.post("/ctms", minimal()).json["email"]["email_id"]

        answer = api.post(f"/ctms/{target}/merge", {"from": contact["email"]["email_id"]})

        assert answer.status_code == 200, answer.text
        assert subscriptions(api.get(f"/ctms/{target}")) == {name: True, "weekly": True}


@pytest.mark.parametrize("mode", ["off", "warn"])
def test_other_modes_accept_every_subscription(
    api: ApiClient, anonymous: ApiClient, caplog: pytest.LogCaptureFixture, mode: NewslettersMode
) -> None:
    entries = [{"name": "old"}, {"name": "jane@example.com"}, {"name": "weekly"}]
    before = counted(anonymous)

    with caplog.at_level(logging.WARNING):
        posted = api.post("/ctms", {**minimal(), "newsletters": entries})
        path = f"/ctms/{posted.json['email']['email_id']}"
        replaced = api.put(path, posted.json)
        patched = api.patch(path, {"newsletters": [{"name": "old"}, {"name": "new"}]})

    everything = {"old": True, "jane@example.com": True, "weekly": True}
    assert subscriptions(posted) == subscriptions(replaced) == everything
    assert subscriptions(patched) == {**everything, "new": True}
    warned = [one.getMessage() for one in caplog.records if one.name == "ctms.contacts.newsletter_rules"]
    start = "new subscription to a newsletter that is"
    shown = [f"{start} retired: old", f"{start} unknown: (not shown)", f"{start} unknown: new"]
    assert warned == (shown if mode == "warn" else [])
    assert growth(before, counted(anonymous)) == ({"retired accepted": 1, "unknown accepted": 2} if warned else {})


def test_refusals_are_counted(api: ApiClient, anonymous: ApiClient) -> None:
    before = counted(anonymous)

    api.post("/ctms", {**minimal(), "newsletters": [{"name": "old"}, {"name": "a"}, {"name": "b"}]})

    assert growth(before, counted(anonymous)) == {"retired refused": 1, "unknown refused": 2}


def test_the_stored_state_is_read_under_the_lock_of_the_contact(
    postgres: str, worker_id: str, settings: Settings
) -> None:
    """A subscription that another transaction is ending is not repeated, but new."""
    url = empty_database(postgres, f"newsletters_{worker_id}")
    apps = Apps(replace(settings, db_url=url, newsletters="enforce"))
    app = apps.get(points_of([NEWS]))
    answers: list[Answer] = []
    with app.app_context():
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_test", roles=["admin"])))
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(app.extensions, "ctms.newsletter_registry", NewsletterRegistry([]))
            email_id = api.post("/ctms", {**minimal(), "newsletters": [{"name": "old"}]}).json["email"]["email_id"]

        def repeat() -> None:
            entry = {"name": "old", "subscribed": True}
            answers.append(api.patch(f"/ctms/{email_id}", {"newsletters": [entry]}))

        repeating = threading.Thread(target=repeat)
        plain = url.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain) as other:
            other.execute("SELECT FROM emails WHERE email_id = %s FOR NO KEY UPDATE", (email_id,))
            other.execute("UPDATE newsletters SET subscribed = false WHERE email_id = %s", (email_id,))
            repeating.start()
            wait_until_someone_waits(url)
        repeating.join()

    apps.release()
    assert_error(answers[0], 422, at=[["body", "newsletters", 0, "name"]])
