"""What is left of an anonymised contact: numbers, and no value of the person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Boolean, Date, Integer, String, Text

from ctms.contacts.registry import PARTS
from ctms.database import pool
from ctms.retention.anonymise import COLUMNS, read_counts
from ctms.retention.models import AnonymousCount
from ctms.retention.policy import ANONYMISE
from tests.http import ApiClient
from tests.retention.rules import insert, make, policy, rule, run
from tests.sync.working import rows

pytestmark = pytest.mark.usefixtures("app")

MARK = "Q7marked"


def marked(part: str, column: Any) -> Any:
    """Return a value for a column that is recognizable wherever it is kept; the name of a list is no personal data."""
    if column.name == "name":
        return "news"
    if isinstance(column.type, String | Text):
        length = column.type.length or 255
        if column.name == "primary_email":
            return f"{MARK}.{part}@example.com"
        return f"{MARK}{part}{column.name}"[:length] if length >= len(MARK) else "Q7"[:length]
    return {Boolean: True, Date: "1907-07-07", Integer: 1}.get(type(column.type))


def insert_marked() -> None:
    """Insert a contact with a marked value in each column of each part."""
    with pool.acquire() as connection:
        (email_id,) = insert(connection)
        for name, part in PARTS.items():
            row: Mapping[str, Any] = {
                column.name: marked(name, column)
                for column in part.table.columns
                if column.name in part.columns and column.name not in {"email_id", "fields"}
            }
            if part.required:
                row = {column: value for column, value in row.items() if column != "mailing_country"}
                places = ", ".join(f"{column} = %s" for column in row)
                connection.execute(f"UPDATE emails SET {places} WHERE email_id = %s", [*row.values(), email_id])
                continue
            names = ", ".join(f'"{column}"' for column in (*row, *(["fields"] if "fields" in part.columns else [])))
            values = [*row.values(), *(['{"geo": "Q7marked"}'] if "fields" in part.columns else [])]
            connection.execute(
                f"INSERT INTO {part.table} (email_id, {names}) VALUES (%s, {', '.join(['%s'] * len(values))})",
                [email_id, *values],
            )
        connection.execute("UPDATE emails SET mailing_country = 'Q7marked country' WHERE email_id = %s", (email_id,))


def dump() -> str:
    """Return every row of every table of the schema, as text."""
    with pool.acquire() as connection:
        tables = connection.execute(
            "SELECT quote_ident(table_name) FROM information_schema.tables"
            " WHERE table_schema = 'public' AND table_type = 'BASE TABLE'"
        ).fetchall()
        found = [
            str(value)
            for (table,) in tables
            for (value,) in connection.execute(f"SELECT t::text FROM {table} t").fetchall()
        ]
    return "\n".join(found)


def test_no_value_of_the_person_is_left() -> None:
    insert_marked()
    (email_id,) = rows("SELECT email_id::text FROM emails WHERE first_name LIKE 'Q7%'")
    assert dump().count("Q7") > 30

    result = run(policy(rule(action=ANONYMISE, mailing_country="q7MARKED country")))

    assert result.numbers["anonymised"] == 1
    left = dump()
    assert "q7" not in left.lower()
    assert "1907-07-07" not in left
    assert email_id in left  # only where its deletion is announced
    assert rows("SELECT count(*) FROM contact_tombstones WHERE email_id::text = %s", email_id) == [1]
    rows("DELETE FROM contact_tombstones WHERE email_id::text = %s", email_id)
    assert email_id not in dump()
    assert rows("SELECT contacts, origin FROM erasures") == [(1, "retention:old")]


def test_names_of_lists_are_kept_only_if_they_are_names() -> None:
    (email_id,) = make()
    for name in ("Fire-fox_2.0: news", "jane@example.com", "Jané", "x" * 64):
        rows("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, %s, true)", email_id, name)

    run(policy(rule(action=ANONYMISE)))

    with pool.acquire() as connection:
        counts = [(one["name"], one["contacts"]) for one in read_counts(connection) if one["kind"] == "newsletters"]
    assert counts == [("", 1), ("Fire-fox_2.0: news", 1)]


def test_the_numbers_add_up_over_runs() -> None:
    def add(country: str | None, lang: str | None, **subscribed: bool | None) -> None:
        (email_id,) = make(email_lang=lang, last_name=country)
        rows("UPDATE emails SET mailing_country = %s WHERE email_id = %s", country, email_id)
        for name, state in subscribed.items():
            rows("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, %s, %s)", email_id, name, state)

    ours = policy(rule(action=ANONYMISE, mailing_country=["ca", "canada"]))
    add("CA", "en-US", news=True, other=False)
    add("ca", "EN", news=None)
    run(ours)
    add("ca", "en", news=True)
    add("Canada", "x", other=False)
    run(ours)

    with pool.acquire() as connection:
        counts = read_counts(connection)
    assert {tuple(one.values())[2:] for one in counts} == {
        (2020, "ca", "en", "contacts", "", True, 3),
        (2020, "", "", "contacts", "", False, 1),
        (2020, "ca", "en", "newsletters", "news", True, 3),
        (2020, "ca", "en", "newsletters", "other", False, 1),
        (2020, "", "", "newsletters", "other", False, 1),
    }
    assert {one["rule"] for one in counts} == {"old"}
    assert {one["month"].day for one in counts} == {1}


def test_an_anonymised_contact_is_no_contact(api: ApiClient) -> None:
    (email_id,) = make()

    run(policy(rule(action=ANONYMISE)))

    assert api.get(f"/ctms/{email_id}").status_code == 404
    assert rows("SELECT count(*) FROM emails") == [0]
    assert run(policy(rule(action=ANONYMISE))).found.due.total() == 0


def test_counts_have_no_column_for_a_person() -> None:
    assert set(COLUMNS) == {
        "month",
        "rule",
        "created_year",
        "country",
        "language",
        "kind",
        "name",
        "subscribed",
        "contacts",
    }
    assert AnonymousCount.__table__.foreign_keys == set()
