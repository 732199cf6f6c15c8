"""`/access-requests`: the record, the report, and who may have it."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from flask import Flask

from ctms.clients.tokens import tokens
from ctms.subject_access import html
from tests.api.described import described
from tests.clients.factories import create_client
from tests.contacts.factories import address, full, minimal
from tests.contacts.rows import execute, insert_contact
from tests.http import Answer, ApiClient, assert_error
from tests.subject_access.conftest import ctms_plugins
from tests.subject_access.pages import Page

__all__ = ["ctms_plugins"]

PATH = "/access-requests"


def ask(api: ApiClient, given: str) -> Answer:
    answer = api.post(PATH, {"address": given})
    assert answer.status_code == 202, answer.text
    return answer


def create(api: ApiClient) -> tuple[str, str]:
    """Create a contact and request its data; return its address and the path of the request."""
    contact = api.post("/ctms", full()).json
    given: str = contact["email"]["primary_email"]
    return given, ask(api, given).headers["Location"]


def test_the_response_has_the_record_and_the_report(app: Flask, api: ApiClient) -> None:
    contact = api.post("/ctms", full()).json

    answer = ask(api, contact["email"]["primary_email"].upper())

    document = described(app)
    document.check("create_access_request", answer)
    record = dict(answer.json)
    report = record.pop("report")
    assert answer.headers["Location"] == f"{PATH}/{record.pop('id')}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert record.pop("requested_at") < record.pop("expires_at")
    assert record == {
        "requested_by": "client:id_test",
        "origin": "api",
        "contacts": 1,
        "copies": 2,
        "failed": 0,
        "status": "pending",
    }
    (found,) = report["contacts"]
    for name in ("email", "amo", "fxa", "mofo"):
        assert contact[name].items() <= found["data"][name].items()
    for name in ("newsletters", "waitlists"):
        for given, stored in zip(contact[name], found["data"][name], strict=True):
            assert given.items() <= stored.items()
    assert {copy["backend"]: copy["status"] for copy in found["copies"]} == {
        "blind": "unsupported",
        "club": "pending",
        "mail": "pending",
    }
    again = api.get(answer.headers["Location"])
    document.check("read_access_request", again)
    assert again.json == answer.json
    assert again.headers["Cache-Control"] == "no-store"


def test_without_a_contact_the_report_is_ready(api: ApiClient) -> None:
    found = ask(api, address()).json

    assert (found["status"], found["contacts"], found["copies"]) == ("ready", 0, 0)
    assert found["report"]["contacts"] == []


def test_the_record_names_nobody(api: ApiClient) -> None:
    given, _ = create(api)

    for table in ("access_requests", "procrastinate_jobs"):
        stored = execute(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t")
        assert given not in stored
        assert given.partition("@")[0] not in stored


def test_an_erasure_takes_its_contact_out_of_the_report(api: ApiClient) -> None:
    given, path = create(api)
    execute("UPDATE access_request_copies SET content = CAST(:copy AS json)", copy=f'{{"data": "{given}"}}')

    assert api.delete(f"/ctms/{given}").status_code == 200

    found = api.get(path).json
    assert (found["contacts"], found["report"]["contacts"]) == (1, [])
    page = api.get(f"{path}?format=html").text
    assert "No contact with the address is stored" not in page
    assert "Create the report again" in page
    for table in ("access_requests", "access_request_contacts", "access_request_copies"):
        assert given not in execute(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t")


def test_an_expired_report_is_neither_shown_nor_kept(app: Flask, api: ApiClient) -> None:
    given, path = create(api)
    _, other = create(api)
    execute(
        "UPDATE access_requests SET expires_at = clock_timestamp() WHERE id = CAST(:id AS uuid)",
        id=path.rpartition("/")[2],
    )

    answer = api.get(path)

    described(app).check("read_access_request", answer)
    assert (answer.json["status"], answer.json["report"]) == ("expired", None)
    assert_error(api.get(f"{path}?format=html"), 404, "The report is no longer stored")
    ask(api, address())
    stored = execute("SELECT string_agg(t::text, ' ') FROM access_request_contacts t")
    assert given not in stored
    assert execute("SELECT count(*) FROM access_requests WHERE result IS NULL") == 1
    assert api.get(path).json["contacts"] == 1
    assert api.get(other).json["report"]["contacts"]


def test_the_page(app: Flask, api: ApiClient) -> None:
    given, path = create(api)

    answer = api.get(f"{path}?format=html")

    described(app).check("read_access_request", answer)
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"].startswith(html.POLICY)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert Page(answer.text).value("email", "e-mail address") == given


def test_the_contact_with_the_address_of_its_own_is_first(api: ApiClient) -> None:
    given = address()
    account = api.post("/ctms", {**minimal(), "fxa": {"fxa_id": uuid.uuid4().hex, "primary_email": given}}).json
    own = api.post("/ctms", {"email": {"primary_email": given}}).json

    found = api.get(ask(api, given).headers["Location"]).json["report"]["contacts"]

    assert [one["email_id"] for one in found] == [own["email"]["email_id"], account["email"]["email_id"]]


def test_raw_spellings_of_an_adopted_database_are_found(api: ApiClient) -> None:
    tag = uuid.uuid4().hex
    raw = insert_contact(primary_email=f"José.{tag}@BÜCHER.example")
    legacy = insert_contact(primary_email=f"not an address {tag}@")

    found = ask(api, f"jose\N{COMBINING ACUTE ACCENT}.{tag}@xn--bcher-kva.example").json
    assert [contact["email_id"] for contact in found["report"]["contacts"]] == [raw]
    found = ask(api, f"NOT an address {tag}@").json
    assert [contact["email_id"] for contact in found["report"]["contacts"]] == [legacy]


@pytest.mark.parametrize(
    ("body", "where", "kind"),
    [
        ({}, ["body", "address"], "missing"),
        ({"address": None}, ["body", "address"], "null"),
        ({"address": 7}, ["body", "address"], "string_type"),
        ({"address": ""}, ["body", "address"], "string_too_short"),
        ({"address": "x" * 256}, ["body", "address"], "string_too_long"),
        ({"address": "a\0b@example.com"}, ["body", "address"], "string_unicode"),
        ({"address": "nobody"}, ["body", "address"], "value_error"),
        ({"address": "*@example.com"}, ["body", "address"], "value_error"),
        ([], ["body"], "dict_type"),
    ],
)
def test_an_invalid_body_is_refused(api: ApiClient, body: Any, where: list[str], kind: str) -> None:
    answer = api.post(PATH, body)

    assert answer.status_code == 422
    (problem,) = answer.json["detail"]
    assert (problem["loc"], problem["type"]) == (where, kind)
    assert "example.com" not in answer.text
    assert execute("SELECT count(*) FROM access_requests") == 0


def test_invalid_parameters_are_refused(api: ApiClient) -> None:
    _, path = create(api)

    odd = api.get(f"{path}?format=pdf")
    assert (odd.status_code, odd.json["detail"][0]["loc"]) == (422, ["query", "format"])
    assert api.get(f"{PATH}/no-uuid").json["detail"][0]["loc"] == ["path", "request_id"]
    assert_error(api.get(f"{PATH}/{uuid.uuid4()}"), 404, "Unknown access request")
    assert_error(api.get(f"{PATH}/{uuid.uuid4()}?format=html"), 404, "Unknown access request")


@pytest.mark.parametrize("role", ["viewer", "editor"])
def test_only_with_the_permission(app: Flask, api: ApiClient, role: str) -> None:
    _, path = create(api)
    client = ApiClient(app.test_client(), tokens().issue(create_client(f"id_{role}", roles=[role])))
    before = execute("SELECT count(*) FROM access_requests")

    for answer in (client.post(PATH, {"address": address()}), client.get(path), client.get(f"{path}?format=html")):
        assert_error(answer, 403, "Permission(s) required: export_contacts")
    assert execute("SELECT count(*) FROM access_requests") == before


def test_a_request_does_not_touch_the_contact(api: ApiClient) -> None:
    contact = api.post("/ctms", minimal()).json
    path = f"/ctms/{contact['email']['email_id']}"
    before = execute("SELECT count(*) FROM outbox")

    ask(api, contact["email"]["primary_email"])

    assert api.get(path).json == contact
    assert execute("SELECT count(*) FROM outbox") == before
