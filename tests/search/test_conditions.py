"""Conditions match the contacts that an oracle in Python says, and refuse what they do not know."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, example, given, settings

from ctms.contacts.registry import LISTS, SUB_DOCUMENTS
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.search.anchors import Age
from ctms.search.conditions import MAX_DEPTH, MAX_VALUES, TESTS, ConditionError, parse_condition
from tests.search import people
from tests.search.people import CONDITIONS, NOW, Contact, matches, random_contact

SEED = 20260228
NUMBER = 150


@pytest.fixture
def stored(app: Flask) -> Iterator[tuple[Connection, list[Contact]]]:  # noqa: ARG001  inside the app's transaction
    """Return a connection, and the contacts that are stored."""
    chance = random.Random(SEED)  # noqa: S311  not for secrets
    contacts = [random_contact(chance) for _ in range(NUMBER)]
    with pool.acquire() as connection:
        people.store(connection, contacts)
        yield connection, contacts


def find(connection: Connection, condition: Any, contacts: list[Contact], now: datetime = NOW) -> set[UUID]:
    """Return which of the contacts match a condition, as the database says."""
    found = parse_condition(condition)
    ids = [one["email"]["email_id"] for one in contacts]
    rows = connection.execute(
        f"SELECT e.email_id FROM emails e WHERE ({found.sql}) AND e.email_id = ANY(%s)", [*found.bind(now), ids]
    ).fetchall()
    return {email_id for (email_id,) in rows}


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(condition=CONDITIONS)
@example(condition={"not": {"not": {"mailing_country": "ca"}}})
@example(condition={"waitlists": {"fields": {"geo": "ca"}}})
@example(condition={"waitlists": {"fields": {"geo": ["CA", "x"], "seats": 3}, "state": "any"}})
@example(condition={"waitlists": {"fields": {"seats": "3"}}})
@example(condition={"waitlists": {"fields": {"beta": True}}})
@example(condition={"newsletters": {"source": "https://a.example/x_"}})
@example(condition={"not": {"newsletters": {"source": "https://a.example/"}}})
def test_conditions_match_what_the_oracle_says(
    stored: tuple[Connection, list[Contact]], condition: dict[str, Any]
) -> None:
    connection, contacts = stored
    expected = {one["email"]["email_id"] for one in contacts if matches(condition, one)}

    assert find(connection, condition, contacts) == expected


@pytest.mark.parametrize("name", sorted(TESTS))
def test_the_contacts_differ_in_every_test(name: str) -> None:
    """So the oracle is asked about contacts that match, and about others."""
    chance = random.Random(SEED)  # noqa: S311  not for secrets
    contacts = [random_contact(chance) for _ in range(NUMBER)]
    values: dict[str, Any] = {
        "create_timestamp": {"older_than": "1y"},
        "update_timestamp": {"before": "2025-02-28"},
        "mailing_country": "CA",
        "email_lang": ["en"],
        "newsletters": {"name": "news", "state": "unsubscribed"},
        "waitlists": {"fields": {"geo": "ca"}},
    }

    numbers = {matches({name: values.get(name, True)}, one) for one in contacts}

    assert numbers == {True, False}


def test_every_test_has_an_oracle() -> None:
    assert set(people.TESTS) == set(TESTS)


def test_parts_of_the_registry_have_tests() -> None:
    assert {*LISTS, *(f"has_{name}" for name in SUB_DOCUMENTS)} <= set(TESTS)


def test_fields_that_postgresql_cannot_read_match_nothing(stored: tuple[Connection, list[Contact]]) -> None:
    connection, contacts = stored
    email_id = contacts[0]["email"]["email_id"]
    for number, fields in enumerate(
        (r'{"geo": "\u0000", "a": "x"}', r'{"a": "x", "geo": "\ud800"}', "[1]", "7", "null")
    ):
        connection.execute(
            "INSERT INTO waitlists (email_id, name, fields, subscribed) VALUES (%s, %s, %s::json, true)",
            (email_id, f"odd-{number}", fields),
        )

    assert find(connection, {"waitlists": {"name": [f"odd-{number}" for number in range(5)]}}, contacts) == {email_id}
    assert find(connection, {"waitlists": {"fields": {"a": "x"}}}, contacts) == set()


def test_values_are_parameters() -> None:
    evil = "'; DROP TABLE emails; --"

    condition = parse_condition(
        {
            "mailing_country": evil,
            "newsletters": {"name": evil, "source": evil},
            "waitlists": {"fields": {evil: [evil, 1]}},
            "not": {"email_lang": [evil]},
        }
    )

    assert "DROP" not in condition.sql
    assert condition.sql.count("%s") == len(condition.values)


@pytest.mark.parametrize(
    ("age", "now", "then"),
    [
        ("1y", datetime(2024, 2, 29, 5, tzinfo=UTC), datetime(2023, 2, 28, 5, tzinfo=UTC)),
        ("4y", datetime(2024, 2, 29, tzinfo=UTC), datetime(2020, 2, 29, tzinfo=UTC)),
        ("36h", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 2, 28, 12, tzinfo=UTC)),
        ("30d", datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 1, 31, tzinfo=UTC)),
        ("200y", datetime(2024, 3, 1, tzinfo=UTC), datetime(1824, 3, 1, tzinfo=UTC)),
    ],
)
def test_ages_count_back(age: str, now: datetime, then: datetime) -> None:
    condition = parse_condition({"create_timestamp": {"older_than": age}})

    assert isinstance(condition.values[0], Age)
    assert condition.bind(now) == [then]


REFUSED: list[tuple[Any, str]] = [
    ({}, "is empty, but an empty condition would match every contact: name a test"),
    ([], "must be a condition: tests by their names"),
    ({"and": []}, "and: must be a list of one or more conditions"),
    ({"or": {"double_opt_in": True}}, "or: must be a list of one or more conditions"),
    ({"or": [{"double_opt_in": True}, {}]}, "or[2]: is empty, but an empty condition would match every contact: "),
    ({"not": {}}, "not: is empty, but an empty condition would match every contact: "),
    ({"not": {"country": "ca"}}, "not.country: there is no such test; the tests are create_timestamp, "),
    ({"double_opt_in": 1}, "double_opt_in: must be true or false"),
    ({"has_fxa": "yes"}, "has_fxa: must be true or false"),
    ({"mailing_country": ""}, "mailing_country: must be text that is not empty"),
    ({"mailing_country": ["ca", 1]}, "mailing_country: must be text that is not empty"),
    ({"mailing_country": []}, "mailing_country: must be a value or a list of 1 to 1,000"),
    ({"mailing_country": ["x"] * (MAX_VALUES + 1)}, "mailing_country: must be a value or a list of 1 to 1,000"),
    ({"mailing_country": "a\0"}, "mailing_country: has a character that no contact can have"),
    ({"mailing_country": "\ud800"}, "mailing_country: has a character that no contact can have"),
    (
        {"create_timestamp": "2026-01-01"},
        "create_timestamp: must have one or more of before, since, older_than, newer_than",
    ),
    ({"create_timestamp": {}}, "create_timestamp: must have one or more of before, since, older_than, newer_than"),
    ({"create_timestamp": {"after": "2026-01-01"}}, "create_timestamp: has after, but may have before, since, "),
    ({"create_timestamp": {"before": "soon"}}, "create_timestamp.before: must be a date or time, as in 2026-01-31 or "),
    ({"create_timestamp": {"since": 5}}, "create_timestamp.since: must be a date or time, as in 2026-01-31 or "),
    *(
        (
            {"update_timestamp": {"older_than": age}},
            "update_timestamp.older_than: must be a number and h, d or y, as in ",
        )
        for age in ("", "0d", "1", "1m", "-1d", "201y", "9999999d", 90, "1 y", "٣d")
    ),
    ({"newsletters": {}}, "newsletters: must have one or more of name, state, source"),
    ({"newsletters": {"fields": {"geo": "ca"}}}, "newsletters: has fields, but may have name, state, source"),
    ({"newsletters": 5}, "newsletters.name: must be text that is not empty"),
    ({"newsletters": {"state": "gone"}}, "newsletters.state: must be one of subscribed, unsubscribed, any"),
    ({"newsletters": {"state": ["any"]}}, "newsletters.state: must be one of subscribed, unsubscribed, any"),
    ({"waitlists": {"source": None}}, "waitlists.source: must be text that is not empty"),
    ({"waitlists": {"fields": {}}}, "waitlists.fields: must have one or more fields, with their values"),
    ({"waitlists": {"fields": {"a": 1.5}}}, "waitlists.fields.a: must be text, a whole number, true or false, or "),
    ({"waitlists": {"fields": {"a": {"b": "c"}}}}, "waitlists.fields.a: must be text, a whole number, true or false, "),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_is_unknown_or_has_another_type_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition(given)

    assert str(refused.value).startswith(message)


def test_an_unknown_test_is_refused_with_the_known_ones_at_its_place() -> None:
    with pytest.raises(ConditionError) as refused:
        parse_condition({"or": [{"email": "jane@example.com"}]}, "rules.old.when")

    message = str(refused.value)
    assert message.startswith("rules.old.when.or[1].email: there is no such test; the tests are ")
    assert set(message.rpartition(" are ")[2].split(", ")) == {*TESTS, "and", "or", "not"}
    assert "jane" not in message


@pytest.mark.parametrize(
    "many",
    [{"or": [{"double_opt_in": True}] * 5_000}, {"waitlists": {"fields": {str(one): 1 for one in range(5_000)}}}],
)
def test_conditions_may_have_many_tests_but_not_without_limit(
    stored: tuple[Connection, list[Contact]], many: Any
) -> None:
    connection, contacts = stored
    assert find(connection, {"or": [{"double_opt_in": True}, {"double_opt_in": False}] * 400}, contacts)

    with pytest.raises(ConditionError, match=r"^when(\.or)?: has too many tests and values$"):
        parse_condition(many, "when")


def test_a_list_with_too_many_tests_is_not_parsed_to_its_end() -> None:
    """A body has room for more of them than can be parsed in a second."""
    with pytest.raises(ConditionError, match=r"^when\.or: has too many tests and values$"):
        parse_condition({"or": [*[{"double_opt_in": True}] * 5_000, {"unknown": True}]}, "when")


def test_conditions_may_be_nested_but_not_without_limit() -> None:
    def nested(levels: int) -> Any:
        return {"not": nested(levels - 1)} if levels > 1 else {"double_opt_in": True}

    parse_condition(nested(MAX_DEPTH))

    with pytest.raises(ConditionError, match="has more than 10 levels"):
        parse_condition(nested(MAX_DEPTH + 1))
