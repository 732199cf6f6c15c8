"""Responses match the OpenAPI document, and every documented status can be produced."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask

from ctms.api import MAX_BODY_IN_BYTES
from ctms.clients.rate_limits import RateLimit, rate_limiter
from ctms.clients.registry import set_rate_limit
from ctms.clients.tokens import tokens
from ctms.contacts.documents import MEMBERS
from ctms.database import pool
from ctms.database.engine import db
from tests.api.batching import mixed
from tests.api.described import Described, described
from tests.api.scene import Scene
from tests.clients.factories import SECRET, create_client
from tests.contacts.factories import full, minimal
from tests.http import Answer, ApiClient

UNKNOWN = "/ctms/93db83d4-4119-4e0c-af87-a713786fa81d"
Request = tuple[str, str, dict[str, Any]]
"""Method, path (of the scene's contact) and parameters."""

LARGE = b" " * (MAX_BODY_IN_BYTES + 1)


def upsert(text: str = "", **email: Any) -> Request:
    """Return the request that creates or replaces a contact, by default a new one."""
    body = minimal(**({"primary_email": text} if text else {}), **email)
    return "PUT", f"/ctms?primary_email={body['email']['primary_email']}", {"json": body}


# One valid request per operation.
GOOD: dict[str, Callable[[Scene], Request]] = {
    "find_contacts": lambda s: ("GET", f"/ctms?primary_email={s.contact['email']['primary_email']}", {}),
    "create_contact": lambda _: ("POST", "/ctms", {"json": full()}),
    "read_contact": lambda s: ("GET", s.path, {}),
    "put_contact": lambda s: ("PUT", s.path, {"json": s.put_body()}),
    "patch_contact": lambda s: ("PATCH", s.path, {"json": {"email": {"first_name": "Joan"}}}),
    "delete_contact": lambda s: ("DELETE", s.address_path, {}),
    "merge_contact": lambda s: ("POST", f"{s.path}/merge", {"json": {"from": s.other()}}),
    "search_contacts": lambda s: (
        "POST",
        "/ctms/search",
        {"json": {"filter": {"has_fxa": True}, "limit": 1 + bool(s.contact), "count": True}},
    ),
    "upsert_contact": lambda _: upsert(),
    "write_contacts": lambda s: ("POST", "/ctms/batch", {"json": mixed(s.contact, s.other())}),
    "list_updates": lambda s: ("GET", f"/updates?start=2020-01-01&limit={1 + bool(s.contact)}", {}),
    "list_events": lambda s: ("GET", f"/events?start=2020-01-01&limit={1 + bool(s.contact)}", {}),
    "read_history": lambda s: ("GET", f"{s.path}/history?limit=1", {}),
    "find_identities": lambda s: ("GET", f"/identities?fxa_id={s.contact['fxa']['fxa_id']}", {}),
    "read_identity": lambda s: ("GET", s.path.replace("ctms", "identity"), {}),
    "list_waitlists": lambda _: ("GET", "/waitlists", {}),
    "list_newsletters": lambda _: ("GET", "/newsletters", {}),
    "erase_contacts": lambda s: ("POST", "/erasures", {"json": {"emails": [s.contact["email"]["primary_email"]]}}),
    "read_erasure": lambda s: (
        "GET",
        s.api.post("/erasures", {"emails": ["nobody@example.com"]}).headers["Location"],
        {},
    ),
    "create_access_request": lambda s: (
        "POST",
        "/access-requests",
        {"json": {"address": s.contact["email"]["primary_email"]}},
    ),
    "read_access_request": lambda s: (
        "GET",
        s.api.post("/access-requests", {"address": s.contact["email"]["primary_email"]}).headers["Location"],
        {},
    ),
    "create_export": lambda _: ("POST", "/exports", {"json": {"fields": ["email"]}}),
    "read_export": lambda s: ("GET", s.exported().rpartition("/files/")[0], {}),
    "delete_export": lambda s: ("DELETE", s.exported().rpartition("/files/")[0], {}),
    "download_export_file": lambda s: ("GET", s.exported(), {}),
    "create_token": lambda _: ("POST", "/token", {"data": {"client_id": "id_test", "client_secret": SECRET}}),
    "redirect_to_docs": lambda _: ("GET", "/", {}),
    "read_version": lambda _: ("GET", "/__version__", {}),
    "read_lbheartbeat": lambda _: ("GET", "/__lbheartbeat__", {}),
    "read_heartbeat": lambda _: ("GET", "/__heartbeat__", {}),
    "crash": lambda _: ("GET", "/__crash__", {}),
    "read_metrics": lambda _: ("GET", "/metrics", {}),
    "read_openapi": lambda _: ("GET", "/openapi.json", {}),
    "show_docs": lambda _: ("GET", "/docs", {}),
    "show_redoc": lambda _: ("GET", "/redoc", {}),
}


def good(scene: Scene, name: str, client: ApiClient | None = None, **kwargs: Any) -> Answer:
    return send(scene, GOOD[name](scene), client, **kwargs)


def send(scene: Scene, request: Request, client: ApiClient | None = None, **kwargs: Any) -> Answer:
    method, path, more = request
    return (client or scene.api).request(method, path, **{**more, **kwargs})


def disabled(scene: Scene, name: str) -> Answer:
    return good(scene, name, scene.client(roles=["admin"], enabled=False))


def without_token(scene: Scene, name: str) -> Answer:
    return good(scene, name, ApiClient(scene.app.test_client(), None))


def without_role(scene: Scene, name: str) -> Answer:
    return good(scene, name, scene.client())


def limited(scene: Scene, name: str) -> Answer:
    client_id, limit = f"id_{uuid.uuid4().hex}", RateLimit(1, 3600, 1)
    client = ApiClient(scene.app.test_client(), tokens().issue(create_client(client_id, roles=["admin"])))
    with db.session.begin():
        set_rate_limit(client_id, limit)
    for _ in range(2):
        rate_limiter().update(client_id, limit, has_token=False)
    return good(scene, name, client)


def fault(scene: Scene, name: str) -> Answer:
    method, path, _ = request = GOOD[name](scene)
    scene.view_raises(path.split("?")[0], method)
    return send(scene, request)


def database_away(scene: Scene, name: str) -> Answer:
    request = GOOD[name](scene)
    scene.database_is_away()
    return send(scene, request)


def changed(scene: Scene, name: str) -> Answer:
    return good(scene, name, headers={"If-Match": '"another"'})


def large(scene: Scene, name: str) -> Answer:
    return good(scene, name, json=None, data=LARGE, content_type="application/json")


def taken(scene: Scene, name: str) -> Answer:
    other = scene.api.post("/ctms", full()).json["email"]["primary_email"]
    bodies = {
        "create_contact": minimal(primary_email=other, email_id=str(uuid.uuid4())),
        "put_contact": scene.put_body(primary_email=other),
        "patch_contact": {"email": {"primary_email": other}},
    }
    return good(scene, name, json=bodies[name])


# Statuses that many operations return for the same reason.
ALIKE: dict[int, Callable[[Scene, str], Answer]] = {
    400: disabled,
    401: without_token,
    403: without_role,
    409: taken,
    412: changed,
    413: large,
    429: limited,
    500: fault,
    503: database_away,
}

# Other statuses, and those with a specific reason.
OWN: dict[tuple[str, int], Callable[[Scene], Answer]] = {
    ("create_contact", 200): lambda s: s.api.post("/ctms", _same(s.contact)),
    ("upsert_contact", 200): lambda s: send(s, upsert(s.contact["email"]["primary_email"])),
    ("upsert_contact", 409): lambda s: send(s, upsert(basket_token=s.contact["email"]["basket_token"])),
    ("write_contacts", 409): lambda s: s.api.post("/ctms/batch?atomic=true", mixed(s.contact, s.other())),
    ("upsert_contact", 422): lambda s: s.api.put("/ctms", minimal()),
    ("write_contacts", 422): lambda s: s.api.post("/ctms/batch", {"items": []}),
    ("write_contacts", 413): lambda s: s.api.post("/ctms/batch", data=LARGE * 10, content_type="application/json"),
    ("read_contact", 304): lambda s: s.api.get(s.path, headers={"If-None-Match": s.api.get(s.path).headers["ETag"]}),
    ("read_contact", 404): lambda s: s.api.get(UNKNOWN),
    ("patch_contact", 404): lambda s: s.api.patch(UNKNOWN, {}),
    ("merge_contact", 404): lambda s: s.api.post(f"{UNKNOWN}/merge", {"from": s.other()}),
    ("merge_contact", 422): lambda s: s.api.post(f"{s.path}/merge", {"from": s.contact["email"]["email_id"]}),
    ("delete_contact", 404): lambda s: s.api.delete("/ctms/nobody@example.com"),
    ("read_identity", 404): lambda s: s.api.get(UNKNOWN.replace("ctms", "identity")),
    ("find_contacts", 422): lambda s: s.api.get("/ctms?email_id=1"),
    ("find_identities", 422): lambda s: s.api.get("/identities?basket_token=1"),
    ("create_contact", 422): lambda s: s.api.post("/ctms", {}),
    ("read_contact", 422): lambda s: s.api.get("/ctms/1"),
    ("put_contact", 422): lambda s: s.api.put(UNKNOWN, s.put_body()),
    ("patch_contact", 422): lambda s: s.api.patch(s.path, {"amo": None}),
    ("search_contacts", 422): lambda s: s.api.post("/ctms/search", {"filter": {"double_opt_in": True}}),
    ("list_events", 422): lambda s: s.api.get("/events"),
    ("read_history", 404): lambda s: s.api.get(f"{UNKNOWN}/history"),
    ("read_history", 422): lambda s: s.api.get(f"{s.path}/history?limit=0"),
    ("list_updates", 410): lambda s: s.api.get("/updates?start=2020-01-01&deleted=true"),
    ("list_updates", 422): lambda s: s.api.get("/updates"),
    ("erase_contacts", 422): lambda s: s.api.post("/erasures", {"emails": []}),
    ("read_erasure", 404): lambda s: s.api.get(UNKNOWN.replace("ctms", "erasures")),
    ("read_erasure", 422): lambda s: s.api.get("/erasures/1"),
    ("create_access_request", 422): lambda s: s.api.post("/access-requests", {}),
    ("read_access_request", 404): lambda s: s.api.get(UNKNOWN.replace("ctms", "access-requests")),
    ("read_access_request", 422): lambda s: s.api.get("/access-requests/1"),
    ("create_export", 409): lambda s: s.exports_are_too_many(),
    ("create_export", 422): lambda s: s.api.post("/exports", {"fields": []}),
    ("create_export", 501): lambda s: s.exports_are_off(),
    ("read_export", 404): lambda s: s.api.get(UNKNOWN.replace("ctms", "exports")),
    ("read_export", 422): lambda s: s.api.get("/exports/1"),
    ("delete_export", 404): lambda s: s.api.delete(UNKNOWN.replace("ctms", "exports")),
    ("delete_export", 422): lambda s: s.api.delete("/exports/1"),
    ("download_export_file", 403): lambda s: s.api.get(f"{s.exported()}x"),
    ("download_export_file", 404): lambda s: s.api.get(
        f"{UNKNOWN.replace('ctms', 'exports')}/files/a?"
        + urlencode({"signature": tokens().sign_link(f"{UNKNOWN.replace('ctms', 'exports')}/files/a", 60)})
    ),
    ("download_export_file", 422): lambda s: s.api.get(s.exported().partition("?")[0]),
    ("read_identity", 422): lambda s: s.api.get("/identity/1"),
    ("create_token", 400): lambda s: s.token({"client_id": "id_test", "client_secret": "wrong"}),
    ("create_token", 401): lambda s: s.token(headers={"Authorization": "Basic aWRfdGVzdDp4"}),
    ("create_token", 413): lambda s: s.token({"scope": "x" * MAX_BODY_IN_BYTES}),
    ("create_token", 422): lambda s: s.token({"grant_type": "password"}),
    ("create_token", 429): lambda s: s.token_after_failures("id_locked"),
    ("read_openapi", 304): lambda s: s.api.get(
        "/openapi.json", headers={"If-None-Match": s.api.get("/openapi.json").headers["ETag"]}
    ),
}


def _same(contact: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in contact.items() if name not in {"status", "vpn_waitlist", "relay_waitlist"}}


@pytest.fixture
def scene(app: Flask, api: ApiClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scene:
    settings = replace(app.extensions["ctms.settings"], export_dir=tmp_path / "exports")
    monkeypatch.setitem(app.extensions, "ctms.settings", settings)
    return Scene(app, api, monkeypatch)


@pytest.fixture
def document(app: Flask) -> Described:
    return described(app)


def pairs() -> list[tuple[str, int]]:
    """Return all producible statuses; `test_there_is_a_way_to_every_status` compares them with the document."""
    guarded = ["find_contacts", "read_contact", "list_updates", "find_identities", "read_identity", "list_waitlists"]
    guarded += ["read_erasure", "list_events", "read_history", "read_access_request", "list_newsletters", "read_export"]
    writing = ["create_contact", "put_contact", "patch_contact", "upsert_contact", "write_contacts"]
    every = [*guarded, *writing, "delete_contact", "merge_contact", "erase_contacts", "create_access_request"]
    every += ["search_contacts", "create_export", "delete_export"]
    usual = {"create_contact": 201, "put_contact": 201, "erase_contacts": 202, "create_access_request": 202}
    usual |= {"upsert_contact": 201, "write_contacts": 207, "create_export": 202, "delete_export": 204}
    conditional = ("put_contact", "patch_contact", "upsert_contact", "delete_contact", "merge_contact")
    found = {
        *((name, usual.get(name, 200)) for name in GOOD if name != "crash"),
        *((name, status) for name in every for status in (400, 401, 403, 429, 503)),
        *((name, status) for name in writing for status in (409, 413)),
        ("erase_contacts", 413),
        ("merge_contact", 413),
        ("search_contacts", 413),
        ("create_access_request", 413),
        ("create_export", 413),
        *((name, 412) for name in conditional),
        *(("crash", status) for status in (400, 401, 429, 503)),
        *((name, 500) for name in GOOD),
        ("create_token", 503),
        *OWN,
    }
    found = (found - {("redirect_to_docs", 200)}) | {("redirect_to_docs", 307)}
    return sorted(found)


def meet(scene: Scene, name: str, status: int) -> Answer:
    """Send the request whose response has the `status`."""
    if (name, status) in OWN:
        return OWN[name, status](scene)
    return ALIKE[status](scene, name) if status in ALIKE else good(scene, name)


def test_there_is_a_way_to_every_status(document: Described) -> None:
    assert document.answers() == set(pairs())


@pytest.mark.parametrize(("name", "status"), pairs())
def test_answers_are_as_documented(scene: Scene, document: Described, name: str, status: int) -> None:
    answer = meet(scene, name, status)

    assert answer.status_code == status, answer.text
    document.check(name, answer)


class TestContacts:
    """Contacts of all kinds, read in all ways."""

    @pytest.mark.parametrize("body", [minimal(), full()], ids=["minimal", "full"])
    def test_written_and_read(self, api: ApiClient, document: Described, body: dict[str, Any]) -> None:
        created = api.post("/ctms", body)
        document.check("create_contact", created)
        email_id = created.json["email"]["email_id"]
        document.check("read_contact", api.get(f"/ctms/{email_id}"))
        document.check("find_contacts", api.get(f"/ctms?email_id={email_id}"))
        document.check("read_identity", api.get(f"/identity/{email_id}"))
        document.check("find_identities", api.get(f"/identities?email_id={email_id}"))
        document.check("patch_contact", api.patch(f"/ctms/{email_id}", {"waitlists": "UNSUBSCRIBE"}))
        document.check("delete_contact", api.delete(f"/ctms/{created.json['email']['primary_email']}"))

    def test_irregular_data_of_existing_services(self, api: ApiClient, document: Described) -> None:
        email_id = api.post("/ctms", full()).json["email"]["email_id"]
        with pool.acquire() as connection:
            for change in (
                "emails SET basket_token = 'no uuid', email_format = NULL, email_lang = NULL, double_opt_in = NULL",
                "emails SET primary_email = 'no address'",
                "newsletters SET source = 'no url', subscribed = NULL, format = NULL, lang = NULL",
                "fxa SET account_deleted = NULL, fxa_id = repeat('x', 255)",
            ):
                connection.execute(f"UPDATE {change} WHERE email_id = %s", (email_id,))

        document.check("read_contact", api.get(f"/ctms/{email_id}"))
        document.check("find_identities", api.get(f"/identities?email_id={email_id}"))

    def test_pages_of_updates_and_the_last_one(self, api: ApiClient, document: Described) -> None:
        for _ in range(3):
            api.post("/ctms", full())

        page = api.get("/updates?start=2020-01-01&limit=2&mofo_relevant=yes")

        document.check("list_updates", page)
        assert page.json["next"] is not None
        last = api.get(page.json["next"].removeprefix("http://localhost"))
        document.check("list_updates", last)
        assert last.json["next"] is None

    def test_sparse_documents(self, api: ApiClient, document: Described) -> None:
        api.post("/ctms", full())

        for name in MEMBERS:
            document.check("search_contacts", api.post("/ctms/search", {"filter": {"has_fxa": True}, "fields": [name]}))

    def test_updates_with_deletions(self, api: ApiClient, document: Described) -> None:
        start = api.post("/ctms", full()).json["email"]["update_timestamp"]
        departed = api.post("/ctms", full()).json["email"]["email_id"]
        deleted = api.post("/ctms", full()).json["email"]["primary_email"]
        api.patch(f"/ctms/{departed}", {"mofo": "DELETE"})
        api.delete(f"/ctms/{deleted}")

        page = api.get("/updates", query_string={"start": start, "deleted": "true", "mofo_relevant": "true"})

        document.check("list_updates", page)
        assert [len(page.json[member]) for member in ("items", "deleted", "left")] == [1, 1, 1]

    def test_nobody(self, api: ApiClient, document: Described) -> None:
        document.check("find_contacts", api.get("/ctms?fxa_id=nobody"))
        document.check("find_identities", api.get("/identities?fxa_id=nobody"))
