"""What reads return: a valid stored document if there is one, else the rendered one, and the same for all readers."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask

from ctms.contacts import queries
from ctms.database.pool import Connection
from ctms.export.formats import make_format
from ctms.export.rendering import make_slices
from ctms.settings import Settings
from ctms.testing.contacts import contact_body
from ctms.testing.http import ApiClient
from tests.stored_documents.conftest import fill_all, valid

PLANT = """
    UPDATE contact_documents SET document = replace(document, '"first_name":"Jane"', '"first_name":"Stored"')"""
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
OF_ALL = ("updates", "deletions", "search", "ids", "export")
SEARCH = {"filter": {"mailing_country": "ca"}}


@pytest.fixture
def contacts(store: Connection, store_api: ApiClient) -> list[dict[str, Any]]:
    """Three contacts with stored documents."""
    made = [
        store_api.post("/ctms", contact_body(email={"first_name": "Jane", "mailing_country": "ca"})) for _ in range(3)
    ]
    assert {one.status_code for one in made} == {201}
    assert valid(store) == 3, "a write stores its document"
    return [one.json for one in made]


@pytest.fixture
def off(store_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set `CTMS_STORED_DOCUMENTS=off`."""
    settings: Settings = store_app.extensions["ctms.settings"]
    monkeypatch.setitem(store_app.extensions, "ctms.settings", dataclasses.replace(settings, stored_documents=False))


def read_all(api: ApiClient, store: Connection, contacts: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return the first names of the contacts, by reader."""
    first = contacts[0]["email"]
    ids = [one["email"]["email_id"] for one in contacts]
    start = f"/updates?start={YESTERDAY}"
    found = {
        "id": [api.get(f"/ctms/{first['email_id']}").json],
        "address": api.get(f"/ctms?primary_email={first['primary_email']}").json,
        "updates": api.get(start).json["items"],
        "deletions": api.get(f"{start}&deleted=true").json["items"],
        "search": api.post("/ctms/search", SEARCH).json["items"],
        "ids": [json.loads(one) for one in queries.documents_by_id(store, ids).values()],
        "export": export(store),
    }
    assert {name: len(some) for name, some in found.items()} == {"id": 1, "address": 1, **dict.fromkeys(OF_ALL, 3)}
    return {name: [one["email"]["first_name"] for one in some] for name, some in found.items()}


def export(store: Connection) -> list[Any]:
    """Return the exported documents."""
    written = make_format("ndjson", None, "none")
    (whole,) = make_slices(1)
    with store.cursor() as cursor, cursor.copy(written.statement(None, ()).build(whole)) as copy:
        return [json.loads(line) for line in written.encode([bytes(row) for row in copy]).splitlines()]


def assert_all_return(found: dict[str, list[str]], expected: str) -> None:
    """Assert that each reader returns this first name, and no other."""
    assert {(reader, name) for reader, names in found.items() for name in names} == {
        (reader, expected) for reader in found
    }


def test_readers_return_stored_documents(
    store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]
) -> None:
    store.execute(PLANT)

    found = read_all(store_api, store, contacts)

    assert_all_return(found, "Stored")


def test_readers_render_outdated_documents(
    store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]
) -> None:
    store.execute(PLANT)
    store.execute("UPDATE amo SET user_id = 'other'")
    store.execute("INSERT INTO outdated_documents (email_id) SELECT email_id FROM emails")

    found = read_all(store_api, store, contacts)

    assert_all_return(found, "Jane")


def test_an_outdated_one_among_stored_documents(
    store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]
) -> None:
    store.execute(PLANT)
    store.execute("UPDATE emails SET last_name = 'x' WHERE email_id = %s", (contacts[1]["email"]["email_id"],))

    found = read_all(store_api, store, contacts)

    for reader in OF_ALL:
        assert sorted(found[reader]) == ["Jane", "Stored", "Stored"]


@pytest.mark.usefixtures("off")
def test_without_stored_documents_all_is_rendered(store_api: ApiClient, store: Connection) -> None:
    made = [
        store_api.post("/ctms", contact_body(email={"first_name": "Jane", "mailing_country": "ca"})).json
        for _ in range(3)
    ]
    assert store.execute("SELECT count(*) FROM contact_documents").fetchone() == (0,)

    found = read_all(store_api, store, made)

    assert_all_return(found, "Jane")


def test_the_answers_are_the_same(store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]) -> None:
    first = contacts[0]["email"]
    paths = [
        f"/ctms/{first['email_id']}",
        f"/ctms?primary_email={first['primary_email']}",
        f"/updates?start={YESTERDAY}&deleted=true",
        f"/updates?start={YESTERDAY}&limit=2",
    ]
    with_stored = [store_api.get(path) for path in paths]
    store.execute("TRUNCATE contact_documents")
    rendered = [store_api.get(path) for path in paths]

    assert [one.json.get("items", one.json) if isinstance(one.json, dict) else one.json for one in with_stored] == [
        one.json.get("items", one.json) if isinstance(one.json, dict) else one.json for one in rendered
    ]
    assert with_stored[0].headers["ETag"] == rendered[0].headers["ETag"]
    assert with_stored[0].text == rendered[0].text


def test_a_contact_that_does_not_exist(store_api: ApiClient) -> None:
    assert store_api.get("/ctms/00000000-0000-4000-8000-000000000009").status_code == 404
    assert store_api.get("/ctms?primary_email=nobody@example.com").json == []


def test_an_erasure_removes_the_document(
    store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]
) -> None:
    assert store_api.delete(f"/ctms/{contacts[0]['email']['primary_email']}").status_code == 200

    assert store.execute("SELECT count(*) FROM contact_documents").fetchone() == (2,)
    assert store.execute("SELECT count(*) FROM outdated_documents").fetchone() == (0,)


def test_a_dry_run_of_a_merge_stores_nothing(
    store_api: ApiClient, store: Connection, contacts: list[dict[str, Any]]
) -> None:
    target, source = (one["email"]["email_id"] for one in contacts[:2])
    before = store.execute("SELECT * FROM contact_documents ORDER BY 1").fetchall()

    assert store_api.post(f"/ctms/{target}/merge", {"from": source, "dry_run": True}).status_code == 200

    assert store.execute("SELECT * FROM contact_documents ORDER BY 1").fetchall() == before
    assert fill_all(store) == 0
