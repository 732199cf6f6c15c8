"""`/updates?deleted=true` in process: deleted contacts, contacts that left a filter, and what is no longer recorded."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from tests.api.test_updates import ids, walk
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import Answer, ApiClient, assert_error

HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=1)


def at(seconds: float) -> str:
    """Return an instant of the tests' hour."""
    return (HOUR + timedelta(seconds=seconds)).isoformat()


@pytest.fixture(autouse=True)
def recorded(api: ApiClient) -> None:  # noqa: ARG001  inside the app's transaction
    """Record deletions since long before the tests' hour, and no others."""
    execute("UPDATE deletion_feed SET recorded_since = now() - interval '1 year'")
    execute("DELETE FROM contact_tombstones")


def insert_tombstone(seconds: float, **columns: Any) -> str:
    email_id = str(columns.pop("email_id", uuid.uuid4()))
    insert("contact_tombstones", email_id=email_id, deleted_at=at(seconds), **columns)
    return email_id


def insert_relevant(seconds: float, relevant: bool, changed: float | None = None) -> str:
    """Insert a contact whose `mofo_relevant` last changed at `changed`."""
    email_id = insert_contact(update_timestamp=at(seconds))
    insert("mofo", email_id=email_id, mofo_relevant=relevant, mofo_contact_id="c")
    execute("DELETE FROM mofo_relevance_changes WHERE email_id = :id", id=email_id)
    if changed is not None:
        insert("mofo_relevance_changes", email_id=email_id, changed_at=at(changed))
    return email_id


def deletions(api: ApiClient, **query: Any) -> Any:
    """Return a page of the tests' hour."""
    answer = api.get("/updates", query_string={"start": at(0), "end": at(3600), "deleted": "true", **query})
    assert answer.status_code == 200, answer.text
    return answer.json


def ids_of(page: Mapping[str, Any], member: str) -> list[str]:
    return [entry["email_id"] for entry in page[member]]


def now() -> datetime:
    found: datetime = execute("SELECT clock_timestamp()")
    return found


class TestPage:
    def test_its_members(self, api: ApiClient) -> None:
        other = str(uuid.uuid4())
        tombstone = insert_tombstone(5.5, merged_into=other)

        page = deletions(api)

        assert list(page) == ["start", "end", "limit", "after", "next", "items", "deleted"]
        assert page["deleted"] == [
            {"email_id": tombstone, "deleted_at": f"{at(5.5)[:19]}.500000+00:00", "merged_into": other}
        ]

    def test_without_the_parameter_nothing_is_added(self, api: ApiClient) -> None:
        for second in range(2):
            insert_contact(update_timestamp=at(second))
        insert_tombstone(0.5)
        query = {"start": at(0), "end": at(3600), "limit": 2, "mofo_relevant": "no"}

        plain = api.get("/updates", query_string=query)

        assert plain.data == api.get("/updates", query_string={**query, "deleted": "no"}).data
        assert plain.data == api.get("/updates", query_string={**query, "deleted": ""}).data
        assert list(plain.json) == ["start", "end", "limit", "after", "next", "items"]
        assert "deleted" not in api.get("/updates", query_string={**query, "limit": 1}).json["next"]

    def test_a_filter_adds_those_that_left_it(self, api: ApiClient) -> None:
        insert_relevant(1, True, changed=1)
        departed = insert_relevant(2, False, changed=2)

        page = deletions(api, mofo_relevant="true")

        assert list(page) == ["start", "end", "limit", "after", "next", "items", "deleted", "left"]
        assert page["left"] == [{"email_id": departed, "left_at": f"{at(2)[:19]}.000000+00:00"}]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 12, 1000])
    @pytest.mark.parametrize("relevant", [None, "true"])
    def test_pages_are_cut_from_one_sequence(self, api: ApiClient, limit: int, relevant: str | None) -> None:
        moments = [1, 1, 1, 2, 4, 4, 5, 5, 5, 5, 6, 3599]
        expected: list[tuple[str, str, str]] = []
        for number, moment in enumerate(moments):
            kind = ("items", "deleted", "left" if relevant else "items")[number % 3]
            if kind == "items":
                found = insert_relevant(moment, True)
            else:
                found = insert_tombstone(moment) if kind == "deleted" else insert_relevant(1, False, changed=moment)
            expected.append((at(moment), found, kind))
        insert_tombstone(-0.001)
        insert_tombstone(3600)
        insert_relevant(1, relevant is None, changed=3600)
        if relevant is None:
            expected.append((at(1), execute("SELECT email_id::text FROM mofo_relevance_changes"), "items"))
        expected.sort(key=lambda entry: (datetime.fromisoformat(entry[0]), entry[1]))

        pages = walk_hour(api, limit=limit, **({"mofo_relevant": relevant} if relevant else {}))

        listed: list[set[tuple[str, str]]] = []
        for page in pages:
            members = {"items": ids(page), "deleted": ids_of(page, "deleted")}
            if relevant:
                members["left"] = ids_of(page, "left")
            for member, found_ids in members.items():
                wanted = [email_id for _, email_id, kind in expected if kind == member]
                assert found_ids == [email_id for email_id in wanted if email_id in found_ids]
            listed.append({(email_id, member) for member, found_ids in members.items() for email_id in found_ids})
        assert listed == [
            {(email_id, kind) for _, email_id, kind in expected[first : first + limit]}
            for first in range(0, len(expected), limit)
        ]
        assert len({page["end"] for page in pages}) == 1

    def test_next_keeps_the_parameter(self, api: ApiClient) -> None:
        for second in range(3):
            insert_tombstone(second)

        pages = walk_hour(api, limit=2)

        assert [len(page["deleted"]) for page in pages] == [2, 1]
        assert parse_qs(urlsplit(pages[0]["next"]).query)["deleted"] == ["true"]

    def test_a_deletion_during_the_walk_is_of_the_next_one(self, api: ApiClient) -> None:
        start = now().isoformat()
        contacts = [api.post("/ctms", minimal()).json["email"] for _ in range(3)]

        first = api.get("/updates", query_string={"start": start, "limit": 1, "deleted": "true"}).json
        api.delete(f"/ctms/{contacts[0]['primary_email']}")
        api.delete(f"/ctms/{contacts[1]['primary_email']}")
        rest = api.get(first["next"].removeprefix("http://localhost")).json
        later = api.get("/updates", query_string={"start": first["end"], "deleted": "true"}).json

        assert ids(first) == [contacts[0]["email_id"]]
        assert (ids(rest), rest["deleted"], rest["next"]) == ([contacts[2]["email_id"]], [], None)
        assert ids_of(later, "deleted") == [contacts[0]["email_id"], contacts[1]["email_id"]]


def walk_hour(api: ApiClient, **query: Any) -> list[Any]:
    return walk(api, start=at(0), end=at(3600), deleted="true", **query)


class TestRecords:
    """Every way to delete a contact, or to change `mofo_relevant`, is listed."""

    @pytest.fixture
    def contact(self, api: ApiClient) -> dict[str, Any]:
        created: dict[str, Any] = api.post("/ctms", full()).json
        return created

    @pytest.mark.parametrize("way", ["delete", "erasure", "sql"])
    def test_a_deletion(self, api: ApiClient, contact: dict[str, Any], way: str) -> None:
        start, email = now(), contact["email"]

        if way == "delete":
            api.delete(f"/ctms/{email['primary_email']}")
        elif way == "erasure":
            api.post("/erasures", {"emails": [email["primary_email"]]})
        else:
            execute("DELETE FROM emails WHERE email_id = :id", id=email["email_id"])
        page = api.get("/updates", query_string={"start": start.isoformat(), "deleted": "true"}).json

        assert page["items"] == []
        (found,) = page["deleted"]
        assert (found["email_id"], found["merged_into"]) == (email["email_id"], None)
        assert start < datetime.fromisoformat(found["deleted_at"]) < datetime.fromisoformat(page["end"])

    def test_many_deletions_by_one_statement(self, api: ApiClient) -> None:
        contacts = {insert_contact() for _ in range(20)}
        start = now().isoformat()

        execute("DELETE FROM emails WHERE email_id = ANY(CAST(:ids AS uuid[]))", ids=list(contacts))
        pages = walk(api, start=start, end="", limit=6, deleted="true")

        assert [len(page["deleted"]) for page in pages] == [6, 6, 6, 2]
        assert {email_id for page in pages for email_id in ids_of(page, "deleted")} == contacts

    def test_a_contact_that_returns_is_not_deleted(self, api: ApiClient, contact: dict[str, Any]) -> None:
        start, email = now().isoformat(), contact["email"]
        api.delete(f"/ctms/{email['primary_email']}")

        api.put(f"/ctms/{email['email_id']}", minimal(email_id=email["email_id"]))
        page = api.get("/updates", query_string={"start": start, "deleted": "true"}).json

        assert (ids(page), page["deleted"]) == ([email["email_id"]], [])

    LEAVE: Mapping[str, Callable[[ApiClient, str], Answer | None]] = {
        "the group is reset": lambda api, email_id: api.patch(f"/ctms/{email_id}", {"mofo": "DELETE"}),
        "the value is changed": lambda api, email_id: api.patch(
            f"/ctms/{email_id}", {"mofo": {"mofo_relevant": False}}
        ),
        "only defaults are left": lambda api, email_id: api.patch(
            f"/ctms/{email_id}", {"mofo": {"mofo_relevant": False, "mofo_email_id": None, "mofo_contact_id": None}}
        ),
        "it is replaced without the group": lambda api, email_id: api.put(
            f"/ctms/{email_id}", minimal(email_id=email_id)
        ),
        "it is replaced with another value": lambda api, email_id: api.put(
            f"/ctms/{email_id}", {**minimal(email_id=email_id), "mofo": {"mofo_contact_id": "x"}}
        ),
        "the column is changed by SQL": lambda _, email_id: execute(
            "UPDATE mofo SET mofo_relevant = NULL WHERE email_id = :id", id=email_id
        ),
        "the row is deleted by SQL": lambda _, email_id: execute("DELETE FROM mofo WHERE email_id = :id", id=email_id),
    }

    @pytest.mark.parametrize("way", LEAVE)
    def test_a_relevant_contact_leaves(self, api: ApiClient, contact: dict[str, Any], way: str) -> None:
        start, email_id = now().isoformat(), contact["email"]["email_id"]

        answer = self.LEAVE[way](api, email_id)
        assert answer is None or answer.status_code in {200, 201}
        relevant = self.updates(api, start, "true")
        others = self.updates(api, start, "false")

        assert ids(relevant) == []
        assert ids_of(relevant, "left") == [email_id]
        assert ids_of(relevant, "deleted") == []
        assert ids_of(others, "left") == []

    @pytest.mark.parametrize("way", ["changed", "replaced"])
    def test_an_irrelevant_contact_leaves(self, api: ApiClient, way: str) -> None:
        email_id = api.post("/ctms", minimal()).json["email"]["email_id"]
        start = now().isoformat()

        if way == "changed":
            api.patch(f"/ctms/{email_id}", {"mofo": {"mofo_relevant": True}})
        else:
            api.put(f"/ctms/{email_id}", {**minimal(email_id=email_id), "mofo": {"mofo_relevant": True}})
        others, relevant = self.updates(api, start, "false"), self.updates(api, start, "true")

        assert (ids(others), ids_of(others, "left")) == ([], [email_id])
        assert (ids(relevant), ids_of(relevant, "left")) == ([email_id], [])

    def test_a_change_of_other_members_is_no_departure(self, api: ApiClient, contact: dict[str, Any]) -> None:
        start, email_id = now().isoformat(), contact["email"]["email_id"]

        api.patch(f"/ctms/{email_id}", {"mofo": {"mofo_contact_id": "other"}})
        api.put(f"/ctms/{email_id}", {**minimal(email_id=email_id), "mofo": {"mofo_relevant": True}})

        assert execute("SELECT changed_at < CAST(:start AS timestamptz) FROM mofo_relevance_changes", start=start)

    def test_a_relevant_contact_returns_irrelevant(self, api: ApiClient, contact: dict[str, Any]) -> None:
        """Its tombstone is gone, so a follower of relevant contacts must get it in another member."""
        start, email = now().isoformat(), contact["email"]

        api.delete(f"/ctms/{email['primary_email']}")
        api.put(f"/ctms/{email['email_id']}", minimal(email_id=email["email_id"]))
        relevant = self.updates(api, start, "true")

        assert (ids(relevant), relevant["deleted"]) == ([], [])
        assert ids_of(relevant, "left") == [email["email_id"]]
        assert ids_of(self.updates(api, start, "false"), "left") == []

    def test_a_departed_contact_is_deleted(self, api: ApiClient, contact: dict[str, Any]) -> None:
        start, email = now().isoformat(), contact["email"]

        api.patch(f"/ctms/{email['email_id']}", {"mofo": "DELETE"})
        api.delete(f"/ctms/{email['primary_email']}")
        relevant = self.updates(api, start, "true")

        assert ids_of(relevant, "deleted") == [email["email_id"]]
        assert relevant["left"] == []

    @staticmethod
    def updates(api: ApiClient, start: str, relevant: str) -> Any:
        return api.get("/updates", query_string={"start": start, "deleted": "true", "mofo_relevant": relevant}).json


class TestGone:
    @pytest.fixture(autouse=True)
    def thirty_days(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = replace(app.extensions["ctms.settings"], tombstone_days=30)
        monkeypatch.setitem(app.extensions, "ctms.settings", settings)

    def get(self, api: ApiClient, start: datetime, **query: Any) -> Answer:
        return api.get("/updates", query_string={"start": start.isoformat(), "deleted": "true", **query})

    def test_a_start_before_the_kept_days(self, api: ApiClient) -> None:
        thirty = now() - timedelta(days=30)

        answer = self.get(api, thirty - timedelta(seconds=1))

        since = datetime.fromisoformat(answer.json["recorded_since"])
        assert thirty <= since <= thirty + timedelta(minutes=5)
        assert_error(answer, 410)
        assert since.isoformat() in answer.json["detail"]
        assert self.get(api, thirty + timedelta(minutes=5)).status_code == 200

    def test_a_start_before_the_first_record(self, api: ApiClient) -> None:
        since = now() - timedelta(days=2)
        execute("UPDATE deletion_feed SET recorded_since = :since", since=since)

        refused = self.get(api, since - timedelta(microseconds=1))

        assert_error(refused, 410)
        assert refused.json["recorded_since"] == since.isoformat()
        assert self.get(api, since).status_code == 200

    def test_a_page_in_the_middle_of_a_walk(self, api: ApiClient) -> None:
        since = now() - timedelta(days=2)
        insert_tombstone(0)
        insert_tombstone(1)
        first = self.get(api, since, limit=1).json

        execute("UPDATE deletion_feed SET recorded_since = CAST(:since AS timestamptz) + interval '1 s'", since=since)

        assert_error(api.get(first["next"].removeprefix("http://localhost")), 410)

    def test_without_the_parameter_every_start_is_good(self, api: ApiClient) -> None:
        assert self.get(api, now() - timedelta(days=10000), deleted="false").status_code == 200

    def test_a_walk_anew_and_from_its_end(self, api: ApiClient) -> None:
        """As the message says."""
        email = api.post("/ctms", minimal()).json["email"]
        assert "list all contacts anew" in self.get(api, datetime(2020, 1, 1, tzinfo=UTC)).json["detail"]

        whole = walk(api, start="0001-01-01", end="", limit=1000)
        api.delete(f"/ctms/{email['primary_email']}")
        later = self.get(api, datetime.fromisoformat(whole[-1]["end"]))

        assert email["email_id"] in {email_id for page in whole for email_id in ids(page)}
        assert ids_of(later.json, "deleted") == [email["email_id"]]
