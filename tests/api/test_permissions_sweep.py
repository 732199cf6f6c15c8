"""Every route requires a permission, or is on a short list of open routes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from flask import Flask

from ctms.clients.roles import BUILT_IN_PERMISSIONS
from ctms.clients.tokens import tokens
from tests.clients.factories import create_client
from tests.contacts.factories import minimal
from tests.http import ApiClient, assert_error

ANY_ID = "332de237-cab7-4461-bcc3-48e68f42bd5c"
UNDECLARED = "a route that declares nothing"

OPEN = {
    "/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/token",
    "/metrics",
    "/__version__",
    "/__heartbeat__",
    "/__lbheartbeat__",
    "/exports/<string:export_id>/files/<string:name>",
}
"""Routes without a token: the docs, `/token`, the checks of the platform, and links that are signed."""

ASSETS = "/docs/"
"""The assets of the docs pages."""

ANY_CLIENT = {"/__crash__"}
"""Requires a token but no permission: it returns no data, it raises."""


class Route(NamedTuple):
    """A method of a path with its declared permission."""

    method: str
    rule: str
    permission: str | None

    @property
    def path(self) -> str:
        return re.sub(r"<[^>]+>", ANY_ID, self.rule)


def routes(app: Flask) -> Iterator[Route]:
    """Return all routes of the app, except the HEAD and OPTIONS that Flask adds."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            view: Any = app.view_functions[rule.endpoint]
            if hasattr(view, "view_class"):
                view = getattr(view.view_class, method.lower())
            yield Route(method, rule.rule, getattr(view, "_ctms_permission", UNDECLARED))


def guarded(app: Flask) -> list[Route]:
    """Return the routes that require a permission."""
    return [route for route in routes(app) if route.permission not in {None, UNDECLARED}]


def call(client: ApiClient, route: Route) -> Any:
    return client.request(route.method, route.path)


@pytest.fixture
def powerless(app: Flask) -> ApiClient:
    """Return a known client without roles."""
    return ApiClient(app.test_client(), tokens().issue(create_client("id_powerless")))


def test_every_route_declares_a_permission_or_is_known_to_be_open(app: Flask) -> None:
    undeclared = {route.rule for route in routes(app) if route.permission == UNDECLARED}

    assert {rule for rule in undeclared if not rule.startswith(ASSETS)} <= OPEN
    assert {route.rule for route in routes(app) if route.permission is None} == ANY_CLIENT


def test_the_list_of_public_routes_names_existing_routes(app: Flask) -> None:
    assert {route.rule for route in routes(app)} >= OPEN


def test_required_permissions_cannot_be_deleted(app: Flask) -> None:
    assert {route.permission for route in guarded(app)} == set(BUILT_IN_PERMISSIONS)


def test_the_contact_routes_ask_for_the_permission_that_fits(app: Flask) -> None:
    wanted = {"GET": "view_contacts", "DELETE": "delete_contacts"}

    history = [route for route in guarded(app) if route.rule == "/events" or route.rule.endswith("/history")]
    others = ("/erasures", "/access-requests", "/exports")
    found = [route for route in guarded(app) if not route.rule.startswith(others) and route not in history]

    assert {"/ctms", "/updates", "/identities"} <= {route.rule for route in found}
    for route in found:
        fits = wanted.get(route.method, "manage_contacts")
        if route.rule == "/updates":
            fits = "list_contacts"
        elif route.rule.endswith("/merge"):
            fits = "merge_contacts"
        elif route.rule.endswith("/search"):
            fits = "search_contacts"
        assert route.permission == fits, route
    assert {(route.method, route.permission) for route in history} == {("GET", "view_history")}


@pytest.mark.parametrize(
    ("permission", "allowed"), [("view_contacts", {"/identities"}), ("list_contacts", {"/updates"})]
)
def test_looking_up_and_listing_are_separate_rights(
    make_client: Callable[..., ApiClient], permission: str, allowed: set[str]
) -> None:
    client = make_client(permission)
    paths = {"/identities": "?primary_email=jane@example.com", "/updates": "?start=2026-01-01T00:00:00Z"}

    found = {path for path, query in paths.items() if client.get(path + query).status_code == 200}

    assert found == allowed


def test_erasing_needs_the_permission_to_delete_and_reading_records_its_own(
    app: Flask,
) -> None:
    found = {(route.method, route.permission) for route in guarded(app) if route.rule.startswith("/erasures")}

    assert found == {("POST", "delete_contacts"), ("GET", "view_erasures")}


def test_access_requests_have_a_permission_of_their_own(app: Flask) -> None:
    found = {(route.method, route.permission) for route in guarded(app) if route.rule.startswith("/access-requests")}

    assert found == {("POST", "export_contacts"), ("GET", "export_contacts")}


def test_exports_have_the_permission_to_export(app: Flask) -> None:
    found = {(route.method, route.permission) for route in guarded(app) if route.rule.startswith("/exports")}

    assert found == {(method, "export_contacts") for method in ("POST", "GET", "DELETE")}


def test_a_client_without_roles_is_refused_everywhere(app: Flask, powerless: ApiClient) -> None:
    for route in guarded(app):
        assert_error(call(powerless, route), 403, f"Permission(s) required: {route.permission}")


def test_a_permission_of_another_kind_does_not_help(app: Flask) -> None:
    viewer = ApiClient(app.test_client(), tokens().issue(create_client("id_viewer", roles=["viewer"])))

    for route in guarded(app):
        if route.permission not in {"view_contacts", "list_contacts"}:
            assert_error(call(viewer, route), 403, f"Permission(s) required: {route.permission}")


@pytest.mark.parametrize("kind", ["garbage", "of an unknown client", "signed with another key"])
def test_an_unknown_token_is_refused_everywhere(app: Flask, kind: str) -> None:
    good = tokens().issue("id_nobody")
    token = {"garbage": "garbage", "of an unknown client": good}.get(kind, good[:-20] + "A" * 20)
    client = ApiClient(app.test_client(), token)

    for route in [*guarded(app), *(route for route in routes(app) if route.rule in ANY_CLIENT)]:
        answer = call(client, route)
        assert_error(answer, 401, "Could not validate credentials")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_no_token_is_refused_everywhere(app: Flask, anonymous: ApiClient) -> None:
    for route in [*guarded(app), *(route for route in routes(app) if route.rule in ANY_CLIENT)]:
        answer = call(anonymous, route)
        assert_error(answer, 401, "Not authenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_refused_caller_changes_nothing(api: ApiClient, powerless: ApiClient) -> None:
    contact = api.post("/ctms", minimal()).json
    path = f"/ctms/{contact['email']['email_id']}"
    other = {"email": {**contact["email"], "first_name": "Other"}}

    for refused in (
        powerless.patch(path, {"email": {"first_name": "Other"}}),
        powerless.put(path, other),
        powerless.delete(f"/ctms/{contact['email']['primary_email']}"),
        powerless.post("/ctms", {"email": {"primary_email": "other@example.com"}}),
    ):
        assert refused.status_code == 403

    assert api.get(path).json == contact
    assert api.get("/ctms?primary_email=other@example.com").json == []


def test_a_refused_caller_does_not_learn_whether_a_contact_exists(api: ApiClient, powerless: ApiClient) -> None:
    known = f"/ctms/{api.post('/ctms', minimal()).json['email']['email_id']}"

    answers = [powerless.get(known), powerless.get(f"/ctms/{ANY_ID}"), powerless.get("/ctms/no-uuid")]

    assert {answer.text for answer in answers} == {answers[0].text}
