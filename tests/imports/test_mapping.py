"""Maps: which column becomes which member, and what is refused."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from ctms.imports.documents import DocumentMap, ExportedColumns
from ctms.imports.mapping import MapError, RowError, parse_map

BASE = 'email.primary_email = "Mail"\n'


def item(text: str, row: Any, mode: str = "create") -> Any:
    """Return the item of a row, with the map of the text."""
    return parse_map(tomllib.loads(BASE + text)).item(row, mode)


def contact(text: str, **row: Any) -> Any:
    found = item(text, {"Mail": " a@example.com ", **row})["contact"]
    assert found["email"].pop("primary_email") == "a@example.com"
    return found


@pytest.mark.parametrize(
    ("rule", "cell", "expected"),
    [
        ('email.first_name = "C"', " Ada ", "Ada"),
        ('email.first_name = "C"', 7, "7"),
        ('email.first_name = {column = "C"}', "Ada", "Ada"),
        ('email.first_name = {value = "All"}', "Ada", "All"),
        ('email.double_opt_in = {column = "C", values = {Ja = true, Nein = false}}', "JA ", True),
        ('email.double_opt_in = {column = "C", values = {"true" = true}}', True, True),
        ('email.double_opt_in = {column = "C", values = {Ja = true, "*" = false}}', "vielleicht", False),
        ('email.double_opt_in = {column = "C", values = {Ja = true, "" = false}}', "", False),
        ('email.double_opt_in = {column = "C", values = {Ja = true, "" = false}}', None, False),
        ('amo.last_login = "C"', "05/24/2024", "2024-05-24"),
        ('amo.last_login = "C"', "24.05.2024 10:15", "2024-05-24"),
        ('fxa.created_date = {column = "C", date = true}', "2024-05-24 10:15:00", "2024-05-24T10:15:00+00:00"),
        ('fxa.created_date = "C"', "2024-05-24 10:15:00", "2024-05-24 10:15:00"),
    ],
)
def test_values(rule: str, cell: Any, expected: Any) -> None:
    part, _, member = rule.partition(" ")[0].partition(".")

    assert contact(rule, C=cell)[part] == {member: expected}


@pytest.mark.parametrize("cell", ["", "  ", None])
def test_an_empty_cell_gives_no_value(cell: Any) -> None:
    text = 'email.first_name = "C"\namo.username = "C"\nnewsletters.weekly = "C"\n'

    assert contact(text, C=cell) == {"email": {}, "newsletters": []}


def test_entries_of_lists() -> None:
    text = """
[newsletters]
weekly = "Weekly"
[newsletters.daily]
subscribed = {column = "Daily", values = {in = true, out = false}}
format = {value = "T"}
unsub_reason = "Why"
evidence.ip = "IP"
evidence.confirmed_at = "Confirmed"
[waitlists.relay]
subscribed = {value = true}
fields.geo = "Country"
"""
    row = {
        "Weekly": "yes",
        "Daily": "OUT",
        "Why": "",
        "IP": "192.0.2.7",
        "Confirmed": "2020-01-02 08:00",
        "Country": "ca",
    }

    found = contact(text, **row)

    assert found["newsletters"] == [
        {"name": "weekly", "subscribed": "yes"},
        {
            "name": "daily",
            "subscribed": False,
            "format": "T",
            "evidence": {"ip": "192.0.2.7", "confirmed_at": "2020-01-02T08:00:00+00:00"},
        },
    ]
    assert found["waitlists"] == [{"name": "relay", "subscribed": True, "fields": {"geo": "ca"}}]


def test_the_identity() -> None:
    row = {"Mail": "a@example.com", "Id": "sf-1"}
    by_id = 'match = "sfdc_id"\nemail.sfdc_id = "Id"\n'

    assert item("", row, "upsert") == {
        "mode": "upsert",
        "match": {"primary_email": "a@example.com"},
        "contact": {"email": {}},
    }
    assert parse_map(tomllib.loads(by_id + BASE)).item(row, "update") == {
        "mode": "update",
        "match": {"sfdc_id": "sf-1"},
        "contact": {"email": {"sfdc_id": "sf-1", "primary_email": "a@example.com"}},
    }
    with pytest.raises(RowError, match="Field required") as raised:
        item("", {"Mail": ""}, "upsert")
    assert raised.value.place == "email.primary_email"


@pytest.mark.parametrize(
    ("rule", "cell", "problem"),
    [
        ('email.double_opt_in = {column = "C", values = {yes = true}}', "secret", "The map has no such value"),
        ('amo.last_login = "C"', "secret", "Input should be a date"),
    ],
)
def test_bad_rows_are_named_without_values(rule: str, cell: str, problem: str) -> None:
    with pytest.raises(RowError) as raised:
        contact(rule, C=cell)

    assert (raised.value.place, raised.value.message) == (rule.partition(" ")[0], problem)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("emails.x = 'C'", "unknown: emails"),
        ("email.create_timestamp = 'C'", r"email.create_timestamp: cannot be imported"),
        ("email.first_name = 3", "email.first_name: should be the name of a column"),
        ("email.first_name = {}", "email.first_name: should be the name of a column"),
        ("email.first_name = {colum = 'C'}", "email.first_name: unknown: colum"),
        ("email.first_name = {date = true}", "either `column` or `value`"),
        ("email.first_name = {column = 'C', value = 'x'}", "either `column` or `value`"),
        ("email.first_name = {value = 'x', date = true}", "`value` stands alone"),
        ("email.first_name = {column = 1}", "`column` should be a name"),
        ("email.first_name = {column = 'C', date = 'y'}", "`date` should be true or false"),
        ("email.double_opt_in = {column = 'C', values = 'yes'}", "email.double_opt_in.values: should be a table"),
        ("newsletters.weekly = {format = 'C'}", "newsletters.weekly: needs `subscribed`"),
        ("newsletters.weekly = {subscribed = 'C', name = 'C'}", "the name is that of the table"),
        ("newsletters.weekly = {subscribed = 'C', fields = {geo = 'C'}}", "newsletters.weekly.fields: cannot"),
        ("newsletters = 'C'", "newsletters: should be a table"),
        ("match = 'phone'", "match: should be one of"),
        ("match = 'fxa_id'", "match is fxa_id, so fxa.fxa_id needs a column"),
    ],
)
def test_invalid_maps(text: str, problem: str) -> None:
    with pytest.raises(MapError, match=problem):
        parse_map(tomllib.loads(f"{text}\n{BASE}" if text.startswith("match") else f"{BASE}{text}"))


def test_columns_are_listed_once() -> None:
    text = 'email.first_name = "Mail"\nnewsletters.a = {subscribed = "S", evidence = {ip = "IP"}}\n'

    assert parse_map(tomllib.loads(BASE + text)).columns == ["Mail", "S", "IP"]


def test_documents() -> None:
    document: dict[str, Any] = {
        "email": {"email_id": "i", "primary_email": "a@x"},
        "amo": None,
        "status": "ok",
        "newsletters": [],
    }

    assert DocumentMap().item(document, "create") == {
        "mode": "create",
        "contact": {"email": document["email"], "newsletters": []},
    }
    assert DocumentMap().item(document, "upsert")["match"] == {"email_id": "i"}
    del document["email"]["email_id"]
    found = DocumentMap().item(document, "upsert")
    assert (found["match"], found["contact"]["email"]) == ({"primary_email": "a@x"}, {})
    assert document["email"] == {"primary_email": "a@x"}
    with pytest.raises(RowError):
        DocumentMap().item({"email": {}}, "update")


def test_exported_columns() -> None:
    columns = ["email.email_id", "email.email_lang", "email.email_format", "email.create_timestamp", "newsletters"]
    row = {"email.email_id": "i", "email.email_lang": "", "email.email_format": "", "newsletters": '[{"name": "n"}]'}

    assert ExportedColumns.is_exported(columns)
    assert not ExportedColumns.is_exported([*columns, "Email"])
    assert not ExportedColumns.is_exported(["newsletters"])
    assert ExportedColumns(columns).item(row, "create")["contact"] == {
        "email": {"email_id": "i", "email_lang": None, "email_format": ""},
        "newsletters": [{"name": "n"}],
    }
    with pytest.raises(RowError, match="JSON"):
        ExportedColumns(columns).item({**row, "newsletters": "["}, "create")
