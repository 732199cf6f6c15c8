"""The report: complete, in the declared format, and readable."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from jsonschema import Draft202012Validator

from ctms.contacts.registry import PARTS
from ctms.contacts.service_tables import SERVICE_TABLES
from ctms.database import pool
from ctms.history.models import SubscriptionEvent
from ctms.subject_access import copies, html, personal_data
from ctms.subject_access.report import SCHEMA, VERSION, compose
from ctms.suppression.fingerprints import Fingerprints
from tests.cli.running import run
from tests.contacts.factories import address, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient
from tests.subject_access.marked import insert_marked, texts
from tests.subject_access.pages import Page
from tests.sync.receiving import RECEIVING

HOSTILE = "<script>alert('x')</script>\"&amp;</td></table><img src=x onerror=alert(1)>"


def collect(given: str) -> str:
    """Return the report about an address, JSON text."""
    with pool.writing() as connection:
        found = personal_data.find(connection, given)
    read = copies.read_all(list(found.contacts))
    return compose(
        found.result,
        [(text, {name: copy.text for name, copy in read[one].items()}) for one, text in found.contacts.items()],
    )


def check(report: str) -> dict[str, Any]:
    """Validate the report by its schema, which is shipped, and return it."""
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    found: dict[str, Any] = json.loads(report)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(found)
    return found


def test_every_column_is_in_it(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    given = address()
    marked = insert_marked(given)
    RECEIVING.mail.contacts[marked["email"]["email_id"]] = {"email": {"first_name": "mark-of-mail"}}

    text = collect(given)

    (contact,) = check(text)["contacts"]
    for name, part in PARTS.items():
        stored = contact["data"][name][0] if part.many else contact["data"][name]
        assert stored.keys() == {column.name for column in part.table.columns}
        assert {**stored, **marked[name]} == stored
    page = Page(html.render(text))
    shown = {row[1][1] for row in page.rows}
    assert [value for value in (*texts(marked), "mark-of-mail") if value not in shown] == []
    assert len(texts(marked)) > 40
    for name, part in PARTS.items():
        if not part.many:
            for column, value in marked[name].items():
                assert page.value(name, html.label(column)) == ("yes" if value is True else value)
    waitlist = f"waitlist: {marked['waitlists']['name']}"
    number = marked["waitlists"]["fields"]["geo"].removeprefix("mark-")
    assert page.value(waitlist, "fields › geo") == f"mark-{number}"  # noqa: RUF001  the separator
    assert page.value(waitlist, "fields › deep › list 2 › b") == f"mark-{number}-c"  # noqa: RUF001
    assert page.value(waitlist, "subscribed") == "yes"


def test_every_column_of_an_event_is_in_it(app: Flask) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given)
    event = {
        "event_id": 7_000_000_000,
        "recorded_at": "2020-01-02T03:04:05.000006+00:00",
        "email_id": email_id,
        "kind": "newsletter",
        "name": f"mark-name {HOSTILE}",
        "action": "unsubscribed",
        "subscribed": False,
        "source": "mark-source",
        "reason": "mark-reason",
        "actor": "mark-actor",
        "request_id": "mark-request",
        "evidence": {"form": "mark-form", "deep": ["mark-deep"]},
        "merged_from": "5a7d6a51-1f56-4d0e-8c5c-2f7d7a1f2b34",
    }
    assert event.keys() == {column.name for column in SubscriptionEvent.__table__.columns}
    insert("subscription_events", **{**event, "evidence": json.dumps(event["evidence"])})

    text = collect(given)

    (contact,) = check(text)["contacts"]
    assert event in contact["history"]
    page = Page(html.render(text))
    (cells,) = [cells for _, cells in page.rows if cells[0] == "2020-01-02 03:04:05 UTC"]
    assert cells[1:3] == [f"newsletter mark-name {HOSTILE}", "unsubscribed"]
    for mark in ("source", "reason", "actor", "request", "form", "deep"):
        assert f"mark-{mark}" in cells[3]


def test_rows_of_other_tables_are_in_it(app: Flask) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given)
    moment = "1990-12-13T14:15:16.000017+00:00"
    execute("DELETE FROM mofo_relevance_changes WHERE email_id = :id", id=email_id)
    insert("mofo_relevance_changes", email_id=email_id, changed_at=moment)
    insert("merged_addresses", email_id=email_id, fingerprint=b"\x07\xff")
    assert [table.name for table in personal_data.record_tables()] == ["merged_addresses", "mofo_relevance_changes"]

    text = collect(given)

    (contact,) = check(text)["contacts"]
    assert contact["records"] == {
        "merged_addresses": [{"email_id": email_id, "fingerprint": "\\x07ff"}],
        "mofo_relevance_changes": [{"email_id": email_id, "changed_at": moment}],
    }
    assert Page(html.render(text)).value("mofo relevance changes", "changed at") == moment


def test_every_table_with_personal_data_about_a_contact_is_in_it_or_excused(app: Flask) -> None:  # noqa: ARG001
    identified = {
        name
        for name, classified in SERVICE_TABLES.items()
        if any(one.personal and "email_id" in columns for one, columns in classified.items())
    }

    shown = {table.name for table in personal_data.record_tables()} | {"subscription_events"}
    pending = {"outbox", "outbox_mirrored", "erasure_deletions"}  # ids only, for a backend
    about_nobody_any_more = {"contact_tombstones"}
    reports = {"access_request_contacts", "access_request_copies"}
    renderings = {"contact_documents", "outdated_documents"}  # of data that is in it
    assert identified == shown | pending | about_nobody_any_more | reports | renderings


def test_the_history_is_in_the_order_of_its_events(api: ApiClient) -> None:
    contact = api.post("/ctms", minimal()).json["email"]
    path = f"/ctms/{contact['email_id']}"
    for subscribed in (True, False):
        changed = api.patch(path, {"newsletters": [{"name": "weekly", "subscribed": subscribed}]})
        assert changed.status_code == 200

    (found,) = check(collect(contact["primary_email"]))["contacts"]

    assert [(event["name"], event["action"]) for event in found["history"]] == [
        ("weekly", "subscribed"),
        ("weekly", "unsubscribed"),
    ]
    assert found["history"] == api.get(f"{path}/history").json["items"]


def test_the_page_explains_each_column(app: Flask) -> None:  # noqa: ARG001
    given = address()
    insert_marked(given)

    text = collect(given)

    report = check(text)
    assert {part: columns.keys() for part, columns in report["classification"].items()} == {
        name: part.classifications.keys() for name, part in PARTS.items()
    }
    purposes = [row[1] for row in Page(html.render(text)).rows if row[0] == "Purposes and retention"]
    for part, columns in report["classification"].items():
        for column, one in columns.items():
            (data,) = [row[3] for row in purposes if row[:3] == [one["category"], one["purpose"], one["retention"]]]
            (of_part,) = [group for group in data.split("; ") if group.startswith(f"{part}: ")]
            assert html.label(column) in of_part.removeprefix(f"{part}: ").split(", ")


def test_values_are_never_markup(app: Flask) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given, first_name=HOSTILE, unsubscribe_reason=HOSTILE)
    insert("newsletters", email_id=email_id, name=HOSTILE, source=HOSTILE, subscribed=True)
    insert("waitlists", email_id=email_id, name=HOSTILE, fields=json.dumps({HOSTILE: HOSTILE}), subscribed=True)
    RECEIVING.mail.contacts[email_id] = {HOSTILE: HOSTILE}

    page = Page(html.render(collect(given)))

    assert page.value("email", "first name") == HOSTILE
    assert page.value(f"newsletter: {HOSTILE}", "source") == HOSTILE
    assert page.value(f"waitlist: {HOSTILE}", f"fields › {HOSTILE}") == HOSTILE  # noqa: RUF001
    assert page.value("Copy in another system: mail", HOSTILE) == HOSTILE
    assert not page.names & {"script", "img", "iframe", "object", "link", "a", "form"}
    assert {name for _, attributes in page.elements for name in attributes} <= {
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "scope",
    }


def test_nothing_is_loaded(app: Flask) -> None:  # noqa: ARG001
    text = html.render(collect(address()))

    assert "url(" not in text
    assert "@import" not in text
    policy = [dict(a)["content"] for name, a in Page(text).elements if dict(a).get("http-equiv")]
    assert policy == [html.POLICY]
    assert "default-src 'none'" in html.POLICY


def test_what_a_page_cannot_show_is_spelt_out(app: Flask) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given, first_name="a\x07b\u202ec")
    odd = r'{"nul": "a\u0000b", "half": "\ud83d", "large": 1e400, "exact": 12345678901234567890.123}'
    insert("waitlists", email_id=email_id, name="odd", fields=odd, subscribed=True)

    text = collect(given)

    page = Page(html.render(text).encode().decode())
    assert odd in text, "the JSON text is as it is stored"
    assert page.value("email", "first name") == r"a\u0007b\u202ec"
    assert page.value("waitlist: odd", "fields › nul") == r"a\u0000b"  # noqa: RUF001
    assert page.value("waitlist: odd", "fields › half") == r"\ud83d"  # noqa: RUF001
    assert page.value("waitlist: odd", "fields › large") == "1e400"  # noqa: RUF001
    assert page.value("waitlist: odd", "fields › exact") == "12345678901234567890.123"  # noqa: RUF001


@pytest.mark.parametrize("value", ["9" * 5000, '["]", "\\\\"' + ", [1" * 3_000 + "]" * 3_001])
def test_what_python_cannot_parse_is_shown(app: Flask, value: str) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given)
    insert(
        "waitlists", email_id=email_id, name="odd", fields=f'{{"before": 1, "x": {value}, "after": 2}}', subscribed=True
    )

    shown = "".join(cells[-1] for _, cells in Page(html.render(collect(given))).rows)

    assert value[-2_500:] in shown
    assert Page(html.render(collect(given))).value("waitlist: odd", "fields › after") == "2"  # noqa: RUF001


def test_null_false_and_nothing_differ(app: Flask) -> None:  # noqa: ARG001
    given = address()
    insert_contact(primary_email=given, last_name="", double_opt_in=False)

    page = Page(html.render(collect(given)))

    assert page.value("email", "first name") == "–"  # noqa: RUF001
    assert page.value("email", "last name") == "(empty)"
    assert page.value("email", "double opt in") == "no"
    assert page.texts.count("Nothing is stored.") == len(PARTS) - 1


def test_a_deeply_nested_copy_is_shown(app: Flask) -> None:  # noqa: ARG001
    given = address()
    email_id = insert_contact(primary_email=given)
    nested: dict[str, Any] = {"end": "here"}
    for _ in range(200):
        nested = {"n": nested}
    RECEIVING.mail.contacts[email_id] = nested

    assert "here" in {cells[1] for _, cells in Page(html.render(collect(given))).rows if len(cells) > 1}


class TestCopies:
    @pytest.fixture
    def email_id(self, app: Flask) -> str:
        return insert_contact(primary_email="copied@example.com")

    def copies(self) -> dict[str, dict[str, Any]]:
        (contact,) = check(collect("copied@example.com"))["contacts"]
        found = {copy.pop("backend"): copy for copy in contact["copies"]}
        for copy in found.values():
            assert (copy.pop("fetched_at") is None) == (copy["status"] == "unsupported")
        return found

    def test_one_is_found_missing_or_cannot_be_read(self, email_id: str) -> None:
        RECEIVING.mail.contacts[email_id] = {"email": {"first_name": "Jane"}}

        assert self.copies() == {
            "mail": {"status": "found", "error": None, "data": {"email": {"first_name": "Jane"}}},
            "club": {"status": "missing", "error": None, "data": None},
            "blind": {"status": "unsupported", "error": None, "data": None},
        }
        page = Page(html.render(collect("copied@example.com")))
        assert page.value("Copy in another system: mail", "email › first name") == "Jane"  # noqa: RUF001
        assert "This system has no copy." in page.texts
        assert "This system receives contacts, but its copies cannot be read from here." in page.texts

    @pytest.mark.parametrize(
        ("answer", "problem"),
        [
            (LookupError("copied@example.com"), "raised LookupError"),
            (["a list"], "must return what is kept by email_id"),
            ({"n": float("nan")}, "returned what JSON cannot hold"),
        ],
        ids=["raises", "no mapping", "no JSON"],
    )
    def test_an_error_is_named_and_fails_no_report(
        self,
        email_id: str,
        answer: Any,
        problem: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def fetch(_: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return {email_id: answer} if isinstance(answer, dict) else answer

        monkeypatch.setattr(RECEIVING.mail, "fetch", fetch)

        found = self.copies()

        assert found["mail"]["status"] == "failed"
        assert found["mail"]["error"] == f"`fetch` of the backend mail {problem}"
        assert found["club"]["status"] == "missing"
        assert problem in caplog.text
        assert "copied@" not in caplog.text

    def test_what_json_lacks_is_text(self, email_id: str) -> None:
        RECEIVING.mail.contacts[email_id] = {"when": date(2020, 1, 27), "some": ("a", "b")}

        assert self.copies()["mail"]["data"] == {"when": "2020-01-27", "some": ["a", "b"]}


def test_a_contact_is_found_by_any_identity(app: Flask) -> None:  # noqa: ARG001
    given = address()
    account, own, other = insert_contact(), insert_contact(primary_email=given), insert_contact(sfdc_id=given)
    insert("fxa", email_id=account, primary_email=given.upper())
    insert("fxa", email_id=own, primary_email=given)
    insert_contact()

    found = check(collect(given.title()))["contacts"]

    assert [(contact["email_id"], contact["found_by"]) for contact in found] == [
        (own, ["primary_email", "fxa_primary_email"]),
        (account, ["fxa_primary_email"]),
    ]
    exact = check(collect(given))["contacts"]
    assert {contact["email_id"] for contact in exact} == {own, account, other}


@pytest.mark.usefixtures("erasure_key")
def test_a_contact_is_found_by_an_address_that_it_lost_in_a_merge(api: ApiClient) -> None:
    lost = address()
    source, target = (
        api.post("/ctms", minimal(primary_email=one)).json["email"]["email_id"] for one in (lost, address())
    )
    assert api.post(f"/ctms/{target}/merge", {"from": source}).status_code == 200

    text = collect(lost.upper())

    (contact,) = check(text)["contacts"]
    assert (contact["email_id"], contact["found_by"]) == (target, ["merged_address"])
    assert "e-mail address of a contact that was merged into this one" in html.render(text)


def test_nobody_is_found(app: Flask) -> None:  # noqa: ARG001
    text = collect(address())

    report = check(text)
    assert (report["version"], report["contacts"]) == (VERSION, [])
    assert "No contact with the address is stored." in Page(html.render(text)).texts


@pytest.mark.usefixtures("nothing_erased", "erasure_key")
def test_a_suppression_and_erasures_are_in_it(cli: CliRunner) -> None:
    given = address()
    assert check(collect(given))["suppressed"] is False
    insert_contact(primary_email=given)
    run(cli, "delete-bulk", "--email", given, "--yes", "--forget")

    text = collect(given.upper())

    report = check(text)
    assert report["suppressed"] is True
    (erasure,) = report["erasures"]
    assert erasure.keys() == {"id", "requested_at", "origin", "forget", "status"}
    page = Page(html.render(text))
    assert page.value("Summary", "Address suppressed") == "yes: it must not be stored again"
    assert [cells for _, cells in page.rows if cells[0] == erasure["id"]]


def test_without_a_key_the_report_says_that_it_does_not_know(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: None))

    text = collect(address())

    report = check(text)
    assert report["suppressed"] is report["erasures"] is None
    assert Page(html.render(text)).value("Summary", "Address suppressed") == "unknown: no key for fingerprints is set"
