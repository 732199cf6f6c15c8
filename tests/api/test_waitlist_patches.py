"""PATCHes of waitlists with rules, which apply to new entries and not to stored ones."""

from __future__ import annotations

from collections.abc import Iterator

import marshmallow as ma
import pytest

from ctms.database import pool
from ctms.plugins import Waitlist, hookimpl
from tests.contacts.factories import minimal
from tests.http import ApiClient, assert_error


class Hub(ma.Schema):
    referrer = ma.fields.String(required=True)


class Counted(ma.Schema):
    seats = ma.fields.Integer(load_default=1)


class Lists:
    """A plugin with waitlists that require a field, fill it in, and accept anything."""

    @hookimpl
    def ctms_waitlists(self) -> Iterator[Waitlist]:
        yield Waitlist(name="hub", title="Hub", schema=Hub)
        yield Waitlist(name="counted", title="Counted", schema=Counted)
        yield Waitlist(name="broken", title="Broken", check=self.check)

    @staticmethod
    def check(fields: dict[str, object]) -> dict[str, object]:
        if not fields:
            raise RuntimeError("for a test")
        return fields


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [Lists]


def test_an_entry_without_fields_that_a_patch_adds_obeys_the_rules(api: ApiClient) -> None:
    contact = api.post("/ctms", minimal()).json
    path = f"/ctms/{contact['email']['email_id']}"

    answer = api.patch(path, {"waitlists": [{"name": "tree"}, {"name": "hub"}], "email": {"first_name": "Jane"}})

    assert_error(answer, 422, at=[["body", "waitlists", 1, "fields", "referrer"]])
    assert api.get(path).json == contact
    added = api.patch(path, {"waitlists": [{"name": "tree"}, {"name": "hub", "subscribed": False}]})
    assert [entry["name"] for entry in added.json["waitlists"]] == ["tree"]


def test_a_patch_of_an_unknown_contact_is_not_found(api: ApiClient) -> None:
    path = "/ctms/93db83d4-4119-4e0c-af87-a713786fa81d"

    assert_error(api.patch(path, {"waitlists": [{"name": "tree"}]}), 404)


def test_defaults_of_rules_are_stored_when_a_patch_adds_an_entry(api: ApiClient) -> None:
    path = f"/ctms/{api.post('/ctms', minimal()).json['email']['email_id']}"

    added = api.patch(path, {"waitlists": [{"name": "counted"}]})
    again = api.patch(path, {"waitlists": [{"name": "counted", "fields": {"seats": 2}}]})
    touched = api.patch(path, {"waitlists": [{"name": "counted", "unsub_reason": "x"}]})

    assert [answer.json["waitlists"][0]["fields"] for answer in (added, again, touched)] == [
        {"seats": 1},
        {"seats": 2},
        {"seats": 2},
    ]


def test_fields_that_newer_rules_would_refuse_stay_readable_and_unchanged(api: ApiClient) -> None:
    entry = {"name": "free", "fields": {"referrer": 1}, "source": "https://example.com/"}
    contact = api.post("/ctms", {**minimal(), "waitlists": [entry]}).json
    path = f"/ctms/{contact['email']['email_id']}"
    with pool.acquire() as connection:
        connection.execute("UPDATE waitlists SET name = 'hub' WHERE email_id = %s", (contact["email"]["email_id"],))

    for patch, fields in (
        ({"email": {"first_name": "Jane"}}, {"referrer": 1}),
        ({"waitlists": [{"name": "hub", "source": None}]}, {"referrer": 1}),
        ({"waitlists": [{"name": "hub", "subscribed": False}]}, {"referrer": 1}),
        ({"waitlists": [{"name": "hub", "subscribed": True}]}, {"referrer": 1}),
        ({"waitlists": "UNSUBSCRIBE"}, {"referrer": 1}),
        ({"waitlists": [{"name": "hub", "fields": {"referrer": "x"}}]}, {"referrer": "x"}),
    ):
        changed = api.patch(path, patch)
        assert changed.status_code == 200, changed.text
        assert changed.json["waitlists"][0]["fields"] == fields
        assert api.get(path).json == changed.json


def test_rules_that_fail_without_fields_affect_only_new_entries(api: ApiClient) -> None:
    path = f"/ctms/{api.post('/ctms', minimal()).json['email']['email_id']}"

    assert_error(api.patch(path, {"waitlists": [{"name": "broken"}]}), 500)
    assert api.patch(path, {"waitlists": [{"name": "broken", "fields": {"a": 1}}]}).status_code == 200
    assert api.patch(path, {"waitlists": [{"name": "broken"}]}).json["waitlists"][0]["fields"] == {"a": 1}
