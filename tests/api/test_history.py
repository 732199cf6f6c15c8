"""`/events` and `/ctms/{email_id}/history`: what each request records, pages, refused requests."""

from __future__ import annotations

import base64
import json
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient, assert_error

UNKNOWN = f"/ctms/{uuid.uuid4()}/history"


def create(api: ApiClient, **groups: Any) -> str:
    """Create a contact and return its path."""
    answer = api.post("/ctms", {**minimal(), **groups})
    assert answer.status_code == 201, answer.text
    return f"/ctms/{answer.json['email']['email_id']}"


def events_of(api: ApiClient, path: str) -> list[dict[str, Any]]:
    """Return all events of a contact."""
    return walk(api, f"{path}/history?limit=1000")


def walk(api: ApiClient, link: str) -> list[dict[str, Any]]:
    """Follow `next` to the last page and return all items."""
    items: list[dict[str, Any]] = []
    following: str | None = link
    while following is not None:
        url = urlsplit(following)
        answer = api.get(f"{url.path}?{url.query}")
        assert answer.status_code == 200, answer.text
        items += answer.json["items"]
        following = answer.json["next"]
    return items


def brief(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["kind"], event["name"], event["action"], event["subscribed"]


class TestRecorded:
    def test_a_contact_without_subscriptions_has_no_events(self, api: ApiClient) -> None:
        assert events_of(api, create(api)) == []

    def test_a_created_contact_has_an_event_for_each_subscription_and_consent(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json

        found = events_of(api, f"/ctms/{contact['email']['email_id']}")

        assert sorted(map(brief, found), key=str) == [
            ("double_opt_in", None, "subscribed", True),
            ("global_opt_out", None, "unsubscribed", False),
            ("newsletter", "ambassadors", "unsubscribed", False),
            ("newsletter", "hubs", "subscribed", True),
            ("waitlist", "relay", "subscribed", True),
            ("waitlist", "super-product", "unsubscribed", False),
            ("waitlist", "vpn", "subscribed", True),
        ]
        by_name = {one["name"]: one for one in found}
        assert by_name["ambassadors"]["source"] == "https://www.mozilla.org/contribute/"
        assert by_name["ambassadors"]["reason"] == "Graduated"
        opt_out = next(one for one in found if one["kind"] == "global_opt_out")
        assert opt_out["reason"] == "done"

    def test_an_event_names_the_client_the_request_and_the_time(self, api: ApiClient) -> None:
        before = datetime.now(UTC)
        answer = api.post("/ctms", {**minimal(), "newsletters": [{"name": "hubs"}]}, headers={"X-Request-Id": "rid-7"})

        (event,) = events_of(api, answer.headers["Location"])

        assert event["actor"] == "client:id_test"
        assert event["request_id"] == "rid-7"
        assert before <= datetime.fromisoformat(event["recorded_at"]) <= datetime.now(UTC)
        assert event["evidence"] is None

    def test_patch_records_what_changes_and_nothing_else(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
        before = len(events_of(api, path))

        answer = api.patch(
            path,
            {
                "email": {"first_name": "Jane", "has_opted_out_of_email": False},
                "newsletters": [
                    {"name": "a"},
                    {"name": "b", "subscribed": False, "unsub_reason": "enough"},
                    {"name": "c", "lang": "fr"},
                    {"name": "d"},
                ],
            },
        )

        assert answer.status_code == 200
        assert [(*brief(one), one["reason"]) for one in events_of(api, path)[before:]] == [
            ("newsletter", "b", "unsubscribed", False, "enough"),
            ("newsletter", "c", "changed", True, None),
            ("newsletter", "d", "subscribed", True, None),
        ]

    def test_unsubscribing_from_all_is_an_event_for_each(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}, {"name": "b", "subscribed": False}, {"name": "c"}])
        before = len(events_of(api, path))

        assert api.patch(path, {"newsletters": "UNSUBSCRIBE"}).status_code == 200

        assert sorted(map(brief, events_of(api, path)[before:])) == [
            ("newsletter", "a", "unsubscribed", False),
            ("newsletter", "c", "unsubscribed", False),
        ]

    def test_put_records_what_it_removes(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}, {"name": "b", "subscribed": False}], waitlists=[{"name": "w"}])
        before = len(events_of(api, path))
        email = api.get(path).json["email"]

        assert api.put(path, {"email": email, "newsletters": [{"name": "new"}]}).status_code == 201

        assert sorted(map(brief, events_of(api, path)[before:]), key=str) == [
            ("newsletter", "a", "unsubscribed", None),
            ("newsletter", "b", "changed", None),
            ("newsletter", "new", "subscribed", True),
            ("waitlist", "w", "unsubscribed", None),
        ]

    def test_changed_fields_of_a_waitlist_are_an_event(self, api: ApiClient) -> None:
        path = create(api, waitlists=[{"name": "w", "fields": {"a": 1}}])

        assert api.patch(path, {"waitlists": [{"name": "w", "fields": {"a": 2}}]}).status_code == 200

        assert [one["action"] for one in events_of(api, path)] == ["subscribed", "changed"]

    @pytest.mark.parametrize(
        ("member", "value", "events"),
        [
            ("has_opted_out_of_email", True, [("global_opt_out", "unsubscribed"), ("global_opt_out", "subscribed")]),
            ("double_opt_in", True, [("double_opt_in", "subscribed"), ("double_opt_in", "unsubscribed")]),
        ],
    )
    def test_a_consent_that_comes_and_goes(
        self, api: ApiClient, member: str, value: bool, events: list[tuple[str, str]]
    ) -> None:
        path = create(api)

        for state in (value, value, not value):
            assert api.patch(path, {"email": {member: state}}).status_code == 200

        assert [(one["kind"], one["action"]) for one in events_of(api, path)] == events

    def test_a_new_reason_of_an_opt_out_is_an_event(self, api: ApiClient) -> None:
        path = create(api)
        for email in ({"unsubscribe_reason": "x"}, {"has_opted_out_of_email": True}, {"unsubscribe_reason": "y"}):
            assert api.patch(path, {"email": email}).status_code == 200

        assert [(one["action"], one["reason"]) for one in events_of(api, path)] == [
            ("unsubscribed", "x"),
            ("changed", "y"),
        ]

    def test_a_writer_beside_the_service_is_recorded_too(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}])
        execute("SELECT set_config('ctms.actor', '', true)")
        execute("UPDATE newsletters SET subscribed = false WHERE email_id = :id", id=path.rpartition("/")[2])

        last = events_of(api, path)[-1]

        assert last["action"] == "unsubscribed"
        assert last["actor"] is None

    def test_a_refused_change_leaves_no_event(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}])
        taken = api.post("/ctms", minimal()).json["email"]["primary_email"]

        answer = api.patch(path, {"email": {"primary_email": taken}, "newsletters": "UNSUBSCRIBE"})

        assert answer.status_code == 409
        assert len(events_of(api, path)) == 1

    def test_the_events_go_with_the_contact(self, api: ApiClient) -> None:
        contact = api.post("/ctms", full()).json["email"]

        assert api.delete(f"/ctms/{contact['primary_email']}").status_code == 200

        assert execute("SELECT count(*) FROM subscription_events WHERE email_id = :id", id=contact["email_id"]) == 0
        assert_error(api.get(f"/ctms/{contact['email_id']}/history"), 404, "Unknown email_id")


EVIDENCE = {
    "form": "newsletter footer",
    "form_version": "7",
    "ip": "2001:db8::1",
    "confirmed_at": "2026-05-01T12:00:00+02:00",
    "campaign": {"id": 5},
}


class TestEvidence:
    @pytest.mark.parametrize("member", ["newsletters", "waitlists"])
    def test_it_is_kept_with_the_event_and_nowhere_else(self, api: ApiClient, member: str) -> None:
        answer = api.post("/ctms", {**minimal(), member: [{"name": "a", "evidence": EVIDENCE}, {"name": "b"}]})

        found = {one["name"]: one["evidence"] for one in events_of(api, answer.headers["Location"])}

        assert found == {"a": EVIDENCE, "b": None}
        assert "evidence" not in answer.text

    def test_it_comes_with_put_and_patch(self, api: ApiClient) -> None:
        path = create(api)
        email = api.get(path).json["email"]

        api.put(path, {"email": email, "newsletters": [{"name": "a", "evidence": {"form": "put"}}]})
        api.patch(path, {"newsletters": [{"name": "a", "subscribed": False, "evidence": {"form": "patch"}}]})

        assert [one["evidence"] for one in events_of(api, path)] == [{"form": "put"}, {"form": "patch"}]

    def test_new_evidence_of_an_unchanged_subscription_is_an_event(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a"}, {"name": "b"}])

        entries = [{"name": "a", "evidence": {"form": "again"}}, {"name": "b"}]
        assert api.patch(path, {"newsletters": entries}).status_code == 200

        last = events_of(api, path)[-1]
        assert (*brief(last), last["evidence"]) == ("newsletter", "a", "changed", True, {"form": "again"})
        assert len(events_of(api, path)) == 3

    def test_it_belongs_to_one_request(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": "a", "evidence": {"form": "one"}}])

        api.patch(path, {"newsletters": [{"name": "a", "subscribed": False}]})

        assert [one["evidence"] for one in events_of(api, path)] == [{"form": "one"}, None]

    @pytest.mark.parametrize("member", ["newsletters", "waitlists"])
    def test_each_entry_has_its_own(self, api: ApiClient, member: str) -> None:
        names = ["a", "ab", "b a", "B", "é", "e\u0301", "\U0001f4a5", "\x7f", "x'", 'x"', "x\\", "x%", 'a" {', ":n"]
        entries = [{"name": name, "evidence": {"form": f"of {name}"}} for name in names]
        path = create(api, **{member: entries})

        stored = {one["name"]: one["evidence"] for one in events_of(api, path)}
        again = [{**one, "evidence": {"form": "again"}} for one in entries[::2]]
        assert api.patch(path, {member: again}).status_code == 200

        assert stored == {one["name"]: one["evidence"] for one in entries}
        assert [one["evidence"] for one in events_of(api, path)[len(entries) :]] == [{"form": "again"}] * len(again)

    def test_that_of_other_entries_is_not_parsed_again_for_each(self, api: ApiClient) -> None:
        """With a thousand entries in a request, this would take minutes."""
        others = '\x01newsletters "b"\x02{no JSON\x01'
        execute("SELECT set_config('ctms.evidence', :others, true)", others=others)
        email_id = insert_contact()

        insert("newsletters", email_id=email_id, name="a", subscribed=True)

        assert execute("SELECT count(*) FROM subscription_events WHERE email_id = :id", id=email_id) == 1

    @pytest.mark.parametrize(
        ("evidence", "place", "kind"),
        [
            ("text", [], "dict_type"),
            ({"note": "x" * 2048}, [], "too_long"),
            ({"notes": [1e308] * 7}, [], "too_long"),
            ({"notes": {"x": [1e-307] * 7}}, [], "too_long"),
            ({"ip": "1.2.3"}, ["ip"], "ip_any_address"),
            ({"confirmed_at": "yesterday"}, ["confirmed_at"], "datetime_parsing"),
            ({"confirmed_at": "2026-05-01T12:00:00"}, ["confirmed_at"], "datetime_parsing"),
            ({"form": 5}, ["form"], "string_type"),
            ({"note": "\0"}, [], "string_unicode"),
        ],
    )
    def test_a_bad_one_is_refused(self, api: ApiClient, evidence: Any, place: list[str], kind: str) -> None:
        answer = api.post("/ctms", {**minimal(), "newsletters": [{"name": "a", "evidence": evidence}]})

        assert answer.status_code == 422
        (problem,) = answer.json["detail"]
        assert problem["loc"] == ["body", "newsletters", 0, "evidence", *place]
        assert problem["type"] == kind
        assert "x" * 100 not in answer.text

    def test_the_limit_counts_bytes_of_utf_8(self, api: ApiClient) -> None:
        most = {"note": "é" * ((2048 - len('{"note": ""}')) // 2)}

        assert api.post("/ctms", {**minimal(), "newsletters": [{"name": "a", "evidence": most}]}).status_code == 201


class TestPages:
    def test_the_history_of_a_contact_in_pages(self, api: ApiClient) -> None:
        path = create(api, newsletters=[{"name": name} for name in "abcde"])

        whole = events_of(api, path)

        assert len(whole) == 5
        assert walk(api, f"{path}/history?limit=2") == whole
        first = api.get(f"{path}/history?limit=2").json
        assert list(first) == ["limit", "after", "next", "items"]
        assert api.get(f"{path}/history?limit=5").json["next"] is None

    def test_the_feed_lists_events_of_all_contacts_in_their_order(self, api: ApiClient) -> None:
        start = datetime.now(UTC).isoformat()
        paths = [create(api, newsletters=[{"name": "a"}, {"name": "b"}]) for _ in range(3)]

        found = walk(api, f"/events?limit=2&start={start.replace('+', '%2B')}")

        assert found == [event for path in paths for event in events_of(api, path)]

    def test_the_members_of_a_page(self, api: ApiClient) -> None:
        page = api.get("/events?start=2020-01-01&end=2020-01-02&limit=7").json

        assert page == {
            "start": "2020-01-01T00:00:00+00:00",
            "end": "2020-01-02T00:00:00+00:00",
            "limit": 7,
            "after": None,
            "next": None,
            "items": [],
        }

    def test_an_unknown_contact(self, api: ApiClient) -> None:
        assert_error(api.get(UNKNOWN), 404, "Unknown email_id")

    def test_the_cursor_of_another_feed(self, api: ApiClient) -> None:
        for _ in range(2):
            insert_contact()
        cursor = api.get("/updates?start=2020-01-01&limit=1").json["after"]

        answer = api.get(f"/events?start=2020-01-01&after={cursor}")

        assert answer.status_code == 422
        assert answer.json["detail"][0]["type"] == "cursor"

    @pytest.mark.parametrize("event_id", ["Infinity", "-Infinity", "NaN", "null", '"x"', "[]"])
    @pytest.mark.parametrize("path", ["/events?start=2020-01-01&", "history?"])
    def test_a_forged_cursor(self, api: ApiClient, path: str, event_id: str) -> None:
        if not path.startswith("/"):
            path = f"{create(api)}/{path}"
        moment = json.dumps("2026-01-01T00:00:00+00:00")
        cursor = base64.urlsafe_b64encode(f"[{moment}, {event_id}, {moment}]".encode()).decode()

        assert_error(api.get(f"{path}after={cursor}"), 422, at=[["query", "after"]])
