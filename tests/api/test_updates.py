"""`/updates` in process: the contacts of a page, the order of pages, refused requests."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import Answer, ApiClient, assert_error

MOMENTS = st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
DAY = {"start": "2021-05-01T00:00:00Z", "end": "2021-05-02T00:00:00Z"}


def at(seconds: float) -> str:
    """Return an instant of the tests' day."""
    return (datetime(2021, 5, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat()


def updates(api: ApiClient, **query: Any) -> Answer:
    answer = api.get("/updates", query_string={**DAY, **query})
    assert answer.status_code == 200, answer.text
    return answer


def ids(page: Any) -> list[str]:
    return [contact["email"]["email_id"] for contact in page["items"]]


def walk(api: ApiClient, **query: Any) -> list[Any]:
    """Follow `next` unchanged to the last page."""
    pages = [updates(api, **query).json]
    while pages[-1]["next"] is not None:
        link = urlsplit(pages[-1]["next"])
        answer = api.get(f"{link.path}?{link.query}")
        assert answer.status_code == 200, answer.text
        pages.append(answer.json)
    return pages


class TestPage:
    def test_it_lists_contacts_of_the_interval_oldest_first(self, api: ApiClient) -> None:
        for moment in (-1, 86400):
            insert_contact(update_timestamp=at(moment))
        wanted = [insert_contact(update_timestamp=at(moment)) for moment in (0, 5, 86399.999999)]

        assert ids(updates(api).json) == wanted

    def test_contacts_of_one_instant_are_in_the_order_of_their_ids(self, api: ApiClient) -> None:
        wanted = sorted(insert_contact(update_timestamp=at(1)) for _ in range(5))

        assert ids(updates(api).json) == wanted

    def test_its_members(self, api: ApiClient) -> None:
        contact = full()
        created = api.post("/ctms", contact).json
        created.pop("status")
        moment = datetime.fromisoformat(created["email"]["update_timestamp"])

        page = updates(api, start=moment.isoformat(), end="").json

        assert list(page) == ["start", "end", "limit", "after", "next", "items"]
        assert page["items"] == [created]
        assert datetime.fromisoformat(page["start"]) == moment
        assert moment < datetime.fromisoformat(page["end"]) <= datetime.now(UTC)
        assert page["limit"] == 100
        assert page["after"] is page["next"] is None

    def test_a_change_brings_a_contact_back(self, api: ApiClient) -> None:
        email_id = insert_contact(update_timestamp=at(1))
        before = datetime.now(UTC) - timedelta(minutes=5)

        api.patch(f"/ctms/{email_id}", {"newsletters": [{"name": "n"}]})

        assert ids(updates(api).json) == []
        assert ids(updates(api, start=before.isoformat(), end="").json) == [email_id]

    def test_an_end_in_the_future_becomes_now(self, api: ApiClient) -> None:
        page = updates(api, end="2999-01-01T00:00:00Z").json

        assert datetime.fromisoformat(page["end"]) <= datetime.now(UTC)

    def test_an_end_before_the_start_is_an_empty_page(self, api: ApiClient) -> None:
        insert_contact(update_timestamp=at(1))

        page = updates(api, start=at(2), end=at(0)).json

        assert page["items"] == []
        assert page["next"] is None

    @pytest.mark.parametrize(("relevant", "wanted"), [("true", [1]), ("false", [0, 2]), ("", [0, 1, 2])])
    def test_those_that_matter_to_the_foundation(self, api: ApiClient, relevant: str, wanted: list[int]) -> None:
        contacts = [insert_contact(update_timestamp=at(second)) for second in range(3)]
        for contact, matters in zip(contacts[1:], (True, False), strict=True):
            insert("mofo", email_id=contact, mofo_relevant=matters, mofo_contact_id="c")

        assert ids(updates(api, mofo_relevant=relevant).json) == [contacts[index] for index in wanted]

    def test_blank_means_absent(self, api: ApiClient) -> None:
        page = updates(api, end="", limit="", after="", mofo_relevant="").json

        assert page["limit"] == 100
        assert_error(api.get("/updates?start="), 422, at=[["query", "start"]])

    @pytest.mark.parametrize(
        "start",
        [
            "2021-05-01T00:00:00+00:00",
            "2021-05-01T02:00:00+02:00",
            "2021-05-01T02:00:00 02:00",  # a `+` that was not escaped
            "2021-05-01T00:00:00",
            "2021-05-01 00:00:00.000",
            "2021-05-01",
        ],
    )
    def test_an_instant_may_be_written_in_many_ways(self, api: ApiClient, start: str) -> None:
        contact = insert_contact(update_timestamp=at(0))
        insert_contact(update_timestamp=at(-0.000001))

        assert ids(updates(api, start=start).json) == [contact]


class TestWalk:
    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
    def test_every_contact_is_listed_once_in_order(self, api: ApiClient, limit: int) -> None:
        wanted = [insert_contact(update_timestamp=at(second)) for second in (1, 2)]
        wanted += sorted(insert_contact(update_timestamp=at(3)) for _ in range(5))

        pages = walk(api, limit=limit)

        assert [email_id for page in pages for email_id in ids(page)] == wanted
        assert all(len(page["items"]) == limit for page in pages[:-1])
        assert len({page["end"] for page in pages}) == 1
        assert pages[-1]["after"] is pages[-1]["next"] is None

    def test_next_keeps_the_parameters(self, api: ApiClient) -> None:
        for second in range(4):
            contact = insert_contact(update_timestamp=at(second))
            insert("mofo", email_id=contact, mofo_relevant=second != 1, mofo_contact_id="c")

        pages = walk(api, limit=1, mofo_relevant="yes", stale_ok="1")

        assert [len(page["items"]) for page in pages] == [1, 1, 1]
        assert {page["items"][0]["mofo"]["mofo_relevant"] for page in pages} == {True}
        query = parse_qs(urlsplit(pages[0]["next"]).query)
        assert query["mofo_relevant"] == query["stale_ok"] == ["true"]
        assert query["limit"] == ["1"]
        assert query["after"] == [pages[0]["after"]]
        assert datetime.fromisoformat(query["start"][0]) == datetime(2021, 5, 1, tzinfo=UTC)

    def test_after_without_next_continues_too(self, api: ApiClient) -> None:
        wanted = sorted(insert_contact(update_timestamp=at(3)) for _ in range(2))
        first = updates(api, limit=1).json

        second = updates(api, limit=1, after=first["after"]).json

        assert ids(first) + ids(second) == wanted

    def test_a_contact_that_changes_meanwhile_is_not_listed_twice(self, api: ApiClient) -> None:
        contacts = [insert_contact(update_timestamp=at(second)) for second in range(3)]
        first = updates(api, limit=1).json

        api.patch(f"/ctms/{contacts[0]}", {})
        api.patch(f"/ctms/{contacts[1]}", {})

        assert ids(updates(api, limit=5, after=first["after"]).json) == contacts[2:]

    def test_next_starts_with_the_public_origin(self, api: ApiClient, app: Flask, monkeypatch: Any) -> None:
        for second in range(2):
            insert_contact(update_timestamp=at(second))

        assert updates(api, limit=1).json["next"].startswith("http://localhost/updates?")
        public = replace(app.extensions["ctms.settings"], server_prefix="https://ctms.example.com")
        monkeypatch.setitem(app.extensions, "ctms.settings", public)
        assert updates(api, limit=1).json["next"].startswith("https://ctms.example.com/updates?")


class TestRefused:
    @pytest.mark.parametrize("limit", ["0", "-1", "1001", "99999999999999999999", "1.5", "ten", "1e2", "٣", "NaN"])
    def test_limits(self, api: ApiClient, limit: str) -> None:
        assert_error(api.get("/updates", query_string={**DAY, "limit": limit}), 422, at=[["query", "limit"]])

    @pytest.mark.parametrize("name", ["start", "end"])
    @pytest.mark.parametrize(
        "moment",
        [
            "today",
            "1620000000",
            "2021-13-01",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "\0",
            "2021-05-01T25",
        ],
    )
    def test_instants(self, api: ApiClient, name: str, moment: str) -> None:
        assert_error(api.get("/updates", query_string={**DAY, name: moment}), 422, at=[["query", name]])

    def test_flags(self, api: ApiClient) -> None:
        refused = api.get("/updates", query_string={**DAY, "mofo_relevant": "perhaps"})

        assert_error(refused, 422, at=[["query", "mofo_relevant"]])

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "null",
            "{}",
            "[]",
            "[1, 2]",
            '["2021-05-01T00:00:00+00:00"]',
            '["2021-05-01T00:00:00+00:00", 5]',
            '["2021-05-01T00:00:00+00:00", "5"]',
            '["2021-05-01T00:00:00", "5f3cbf09-11a8-4ab7-9a3b-8a4f1a4d9e11", "2021-05-01T00:00:00+00:00"]',
            '["2021-05-01T00:00:00+00:00", "5f3cbf09-11a8-4ab7-9a3b-8a4f1a4d9e11", "2021-05-01T00:00:00"]',
            '["\\u0000", "\\u0000"]',
            "[" * 5000,
            "1" * 5000,
        ],
    )
    def test_cursors_of_odd_content(self, api: ApiClient, content: str) -> None:
        cursor = base64.urlsafe_b64encode(content.encode()).decode() or "===="

        assert_error(api.get("/updates", query_string={**DAY, "after": cursor}), 422, at=[["query", "after"]])

    @pytest.mark.parametrize("cursor", ["x", "ä", "\0", "a b", "💥", "-_-_", "=", "AAAA" * 2000])
    def test_texts_that_are_no_cursors(self, api: ApiClient, cursor: str) -> None:
        assert_error(api.get("/updates", query_string={**DAY, "after": cursor}), 422, at=[["query", "after"]])

    @given(
        query=st.dictionaries(
            st.sampled_from(["start", "end", "limit", "after", "mofo_relevant", "other"]),
            st.text(max_size=40) | st.datetimes(timezones=st.timezones()).map(str) | st.integers().map(str),
        )
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_nothing_is_a_server_error(self, api: ApiClient, query: dict[str, str]) -> None:
        assert api.get("/updates", query_string={**DAY, **query}).status_code in {200, 422}

    @given(
        moment=MOMENTS,
        email_id=st.uuids().map(str) | st.text(max_size=40),
        more=st.lists(MOMENTS | st.text(max_size=40) | st.integers(), max_size=2),
    )
    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_nor_is_a_forged_cursor(self, api: ApiClient, moment: str, email_id: str, more: list[Any]) -> None:
        cursor = base64.urlsafe_b64encode(json.dumps([moment, email_id, *more]).encode()).decode()

        assert api.get("/updates", query_string={**DAY, "after": cursor}).status_code in {200, 422}


def test_head_is_answered_without_a_body(api: ApiClient) -> None:
    head = api.request("HEAD", "/updates", query_string=DAY)

    assert head.status_code == 200
    assert head.data == b""


def test_timestamps_come_from_the_database(api: ApiClient) -> None:
    """Stored times and `end` come from the database's clock, regardless of the application's."""
    before = execute("SELECT clock_timestamp()")
    created = api.post("/ctms", minimal()).json["email"]
    after = execute("SELECT clock_timestamp()")

    assert before <= datetime.fromisoformat(created["update_timestamp"]) <= after
    assert created["create_timestamp"] == created["update_timestamp"]
    assert uuid.UUID(created["email_id"])
    assert datetime.fromisoformat(updates(api, end="").json["end"]) >= after
