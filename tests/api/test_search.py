"""`POST /ctms/search`: an oracle in Python for 50,000 contacts, pages, sparse documents, counts, refusals."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import psycopg
import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, given, seed, settings

from ctms.api import search as view
from ctms.clients.tokens import tokens
from ctms.contacts.documents import MEMBERS
from ctms.database import pool
from ctms.search import pages
from ctms.search.conditions import MAX_SCANS, TESTS
from tests.clients.factories import create_client
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute, insert_contact
from tests.http import Answer, ApiClient, assert_error
from tests.search import people
from tests.search.people import INDEXED, NOW, is_indexed, random_contact

SEED = 20260301
NUMBER = 50_000
SMALL = 2_000

Found = list[dict[str, Any]]


def search(api: ApiClient, where: Any, **more: Any) -> Answer:
    return api.post("/ctms/search", {"filter": where, **more})


def found(api: ApiClient, where: Any, **more: Any) -> dict[str, Any]:
    answer = search(api, where, **more)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json
    return page


def walk(api: ApiClient, where: Any, **more: Any) -> Iterator[Found]:
    """Yield the items of each page, to the last one."""
    page = found(api, where, **more)
    while True:
        yield page["items"]
        if page["after"] is None:
            return
        page = found(api, where, after=page["after"], **more)


def ids(items: Found) -> list[str]:
    return [item["email"]["email_id"] for item in items]


def as_json(condition: Any) -> Any:
    return json.loads(json.dumps(condition, default=lambda moment: moment.isoformat()))


@pytest.fixture
def at_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ages count back from the oracle's time."""

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return NOW.astimezone(tz)

    monkeypatch.setattr(view, "datetime", Frozen)


@pytest.mark.long
@pytest.mark.usefixtures("at_now")
def test_it_finds_what_the_oracle_says(api: ApiClient) -> None:
    chance = random.Random(SEED)  # noqa: S311  not for secrets
    contacts = sorted((random_contact(chance) for _ in range(NUMBER)), key=lambda one: str(one["email"]["email_id"]))
    oracle = people.Oracle(contacts)
    with pool.acquire() as connection:
        people.store(connection, contacts)
        connection.execute("ANALYZE emails, amo, fxa, mofo, newsletters, waitlists")
    answered = {True: 0, False: 0}

    def check(condition: Any) -> None:
        where = as_json(condition)
        answered[is_indexed(condition)] += 1
        if not is_indexed(condition):
            answer = search(api, where)
            assert answer.status_code == 422
            assert answer.json["detail"][0]["type"] == "condition_not_indexed"
            return
        expected = [str(contacts[index]["email"]["email_id"]) for index in sorted(oracle.matching(condition))]
        page = found(api, where, limit=1, count=True, fields=["email.email_id"])
        assert page["count"] == {"value": len(expected), "exact": True}
        assert ids(page["items"]) == expected[:1]
        # All pages of a small result; of others, those behind a position.
        start = 0 if len(expected) <= SMALL else chance.randrange(1, len(expected) - SMALL)
        listed: list[str] = []
        after = pages.to_cursor(uuid.UUID(expected[start - 1])) if start else None
        while True:
            page = found(api, where, limit=1000, fields=["email.email_id"], after=after)
            listed, after = [*listed, *ids(page["items"])], page["after"]
            if after is None or len(listed) >= SMALL:
                break
        assert listed == expected[start : start + len(listed)]
        assert after is not None or start + len(listed) == len(expected)

    for name, values in people.EXAMPLES.items():
        for value in values:
            check({name: value})
            check({"not": {name: value}, "mailing_country": "ca"})

    @seed(SEED)
    @settings(max_examples=25, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None)
    @given(condition=INDEXED)
    def combinations(condition: Any) -> None:
        check(condition)

    combinations()
    assert min(answered.values()) > 10


def test_the_examples_have_every_test() -> None:
    assert set(people.EXAMPLES) == set(TESTS)


def test_pages_are_in_the_order_of_ids(api: ApiClient) -> None:
    wanted = sorted(insert_contact(mailing_country="ca") for _ in range(5))
    insert_contact(mailing_country="us")

    listed = [ids(items) for items in walk(api, {"mailing_country": "ca"}, limit=2)]

    assert listed == [wanted[:2], wanted[2:4], wanted[4:]]


def test_a_contact_is_listed_once_whatever_is_written(api: ApiClient) -> None:
    wanted = {insert_contact(email_lang="eo") for _ in range(6)}
    listed: list[str] = []

    for items in walk(api, {"email_lang": "eo"}, limit=1):
        listed += ids(items)
        execute("UPDATE emails SET update_timestamp = now() WHERE email_lang = 'eo'")
        insert_contact(email_lang="eo", email_id=str(uuid.UUID(int=len(listed))))

    assert [one for one in listed if one in wanted] == sorted(wanted)
    assert len(set(listed)) == len(listed)


def test_whole_documents_are_those_of_a_read(api: ApiClient) -> None:
    contact = api.post("/ctms", full()).json
    contact.pop("status", None)

    assert found(api, {"has_fxa": True}) == {"limit": 100, "after": None, "items": [contact]}


@pytest.mark.parametrize("name", MEMBERS)
def test_sparse_documents_have_what_was_asked_for(api: ApiClient, name: str) -> None:
    contact = api.post("/ctms", full()).json

    (item,) = found(api, {"has_fxa": True}, fields=[name])["items"]

    member, _, column = name.partition(".")
    expected: dict[str, Any] = {"email": {"email_id": contact["email"]["email_id"]}}
    if not column:
        expected[member] = contact[member]
    elif isinstance(contact[member], list):
        expected[member] = [{one: entry[one] for one in {"name", column}} for entry in contact[member]]
    else:
        expected[member] = {**expected.get(member, {}), column: contact[member][column]}
    assert item == expected


def test_sparse_documents_can_have_several_members(api: ApiClient) -> None:
    contact = api.post("/ctms", full()).json
    wanted = ["newsletters.lang", "email", "email.primary_email", "vpn_waitlist", "newsletters.source"]

    (item,) = found(api, {"has_fxa": True}, fields=wanted)["items"]

    assert item["email"] == contact["email"]
    assert item["vpn_waitlist"] == contact["vpn_waitlist"]
    assert [set(entry) for entry in item["newsletters"]] == [{"name", "lang", "source"}] * len(contact["newsletters"])
    assert set(item) == {"email", "newsletters", "vpn_waitlist"}
    assert set(found(api, {"has_fxa": True}, fields=[])["items"][0]) == {"email"}


def test_counts_above_the_limit_are_estimates(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        insert_contact(mailing_country="ca")

    assert found(api, {"mailing_country": "ca"}, limit=1, count=True)["count"] == {"value": 4, "exact": True}
    assert "count" not in found(api, {"mailing_country": "ca"})
    monkeypatch.setattr(pages, "MAX_EXACT", 3)
    count = found(api, {"mailing_country": "ca"}, limit=1, count=True)["count"]
    assert count["exact"] is False
    assert count["value"] >= 3


def test_a_count_that_takes_long_is_an_estimate(api: ApiClient, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    insert_contact(mailing_country="ca")
    short = replace(app.extensions["ctms.settings"], db_statement_timeout=1)
    monkeypatch.setitem(app.extensions, "ctms.settings", short)
    monkeypatch.setattr(pages, "count_statement", lambda *_: ("SELECT count(*) FROM (SELECT pg_sleep(10)) s", []))

    page = found(api, {"mailing_country": "ca"}, count=True)

    assert page["count"]["exact"] is False
    assert len(page["items"]) == 1


REFUSED: list[tuple[dict[str, Any], list[Any], str]] = [
    ({}, ["body", "filter"], "missing"),
    ({"filter": None}, ["body", "filter"], "null"),
    ({"filter": []}, ["body", "filter"], "condition"),
    ({"filter": {}}, ["body", "filter"], "condition"),
    ({"filter": {"or": [{"has_fxa": True}, {"has_fxa": 1}]}}, ["body", "filter", "or", 1, "has_fxa"], "condition"),
    ({"filter": {"newsletters": {"state": "x"}}}, ["body", "filter", "newsletters", "state"], "condition"),
    ({"filter": {"double_opt_in": True}}, ["body", "filter"], "condition_not_indexed"),
    ({"filter": {"not": {"mailing_country": "ca"}}}, ["body", "filter"], "condition_not_indexed"),
    ({"filter": {"has_fxa": False}}, ["body", "filter"], "condition_not_indexed"),
    ({"filter": {"newsletters": {"source": "https://"}}}, ["body", "filter"], "condition_not_indexed"),
    (
        {"filter": {"or": [{"has_fxa": True}, {"has_subscription": True}]}},
        ["body", "filter", "or", 1],
        "condition_not_indexed",
    ),
    (
        {"filter": {"and": [{"or": [{"double_opt_in": True}, {"has_fxa": True}]}]}},
        ["body", "filter", "and", 0, "or", 0],
        "condition_not_indexed",
    ),
    ({"filter": {"mailing_country": ["x"] * (MAX_SCANS + 1)}}, ["body", "filter"], "condition_not_indexed"),
    (
        {"filter": {"or": [{"mailing_country": [f"{one}{n}" for n in range(MAX_SCANS)]} for one in "abc"]}},
        ["body", "filter"],
        "condition_not_indexed",
    ),
    ({"filter": {"has_fxa": True}, "limit": 0}, ["body", "limit"], "greater_than_equal"),
    ({"filter": {"has_fxa": True}, "limit": 1001}, ["body", "limit"], "less_than_equal"),
    ({"filter": {"has_fxa": True}, "limit": True}, ["body", "limit"], "int_parsing"),
    ({"filter": {"has_fxa": True}, "limit": 1.5}, ["body", "limit"], "int_parsing"),
    ({"filter": {"has_fxa": True}, "after": "x"}, ["body", "after"], "cursor"),
    ({"filter": {"has_fxa": True}, "after": "AAAA"}, ["body", "after"], "cursor"),
    ({"filter": {"has_fxa": True}, "after": 1}, ["body", "after"], "string_type"),
    ({"filter": {"has_fxa": True}, "fields": ["email.password"]}, ["body", "fields", 0], "literal_error"),
    ({"filter": {"has_fxa": True}, "sql": "1"}, ["body", "sql"], "extra_forbidden"),
]


@pytest.mark.parametrize(("body", "place", "kind"), REFUSED)
def test_invalid_requests_are_refused_with_the_place(
    api: ApiClient, body: dict[str, Any], place: list[Any], kind: str
) -> None:
    answer = api.post("/ctms/search", body)

    assert answer.status_code == 422, answer.text
    assert [(one["loc"], one["type"]) for one in answer.json["detail"]] == [(place, kind)]


def test_a_refusal_says_which_tests_to_add(api: ApiClient) -> None:
    (problem,) = search(api, {"double_opt_in": True}).json["detail"]

    assert "add a test for the name of a newsletter or waitlist, for mailing_country" in problem["msg"]


def test_refusals_do_not_repeat_values(api: ApiClient) -> None:
    assert "jane" not in search(api, {"mailing_country": ["jane@example.com", 1]}).text


@pytest.mark.parametrize("roles", [[], ["viewer"]])
def test_others_are_refused(app: Flask, roles: list[str]) -> None:
    client = ApiClient(app.test_client(), tokens().issue(create_client("id_other", roles=roles)))

    assert_error(search(client, {"has_fxa": True}), 403, "Permission(s) required: search_contacts")
    assert_error(search(client, {"nonsense": True}), 403, "Permission(s) required: search_contacts")


def test_the_permission_suffices(make_client: Callable[..., ApiClient]) -> None:
    insert_contact(mailing_country="ca")

    assert len(found(make_client("search_contacts"), {"mailing_country": "ca"})["items"]) == 1


def test_a_slow_search_is_answered_with_a_hint(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(*_: Any, **__: Any) -> Any:
        with pool.acquire() as connection, connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(1)")

    monkeypatch.setattr(pages, "search", cancel)

    answer = search(api, {"has_fxa": True})

    assert_error(answer, 503, view.TOO_SLOW)
    assert answer.headers["Retry-After"] == "1"


def test_an_unavailable_database_is_not_called_slow(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise psycopg.OperationalError

    monkeypatch.setattr(pages, "search", fail)

    assert_error(search(api, {"has_fxa": True}), 503, "the database is not available")


def test_other_methods_still_concern_a_contact(api: ApiClient) -> None:
    assert api.get("/ctms/search").status_code == 422
    assert api.patch("/ctms/search", {}).status_code == 422
    assert api.post("/ctms", minimal()).status_code == 201
