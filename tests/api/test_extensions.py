"""Routes of plugins, which are guarded, documented and measured like those of CTMS."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click
import flask_smorest
import pytest
from flask import Flask, Response
from flask.views import MethodView

from ctms.api.extensions import unguarded_methods
from ctms.clients.tokens import tokens
from ctms.errors import PluginError
from ctms.plugins import BadRequest, Blueprint, ScalarQuery, connection, fetch_scalar, hookimpl
from ctms.testing.apps import Apps
from ctms.testing.clients import create_client
from ctms.testing.contacts import address
from ctms.testing.http import ApiClient, assert_error
from ctms.testing.plugins import bundled, points_of
from tests.cli.running import run


def blueprint() -> Blueprint:
    """Return a blueprint with a view that reads, one that writes, and one for any client."""
    made = Blueprint("Shelf", __name__, description="Books")

    @made.route("/shelf/<name>")
    class Book(MethodView):
        """One book."""

        @made.guard("view_contacts")
        @made.response(200, {"type": "object"})
        def get(self, name: str) -> Response:
            """Return the number of readers."""
            found = fetch_scalar(ScalarQuery("SELECT count(*) FROM emails WHERE first_name = %s", [name]))
            return Response(json.dumps({"readers": found}), content_type="application/json")

        @made.guard("manage_contacts")
        @made.response(204)
        def put(self, name: str) -> Response:
            """Accept all bodies except a bad one."""
            connection().execute("UPDATE emails SET first_name = %s", [name])
            if name == "bad":
                raise BadRequest("not that one")
            if name == "worse":
                raise LookupError("a bug")
            return Response(status=204)

    @made.route("/shelf")
    @made.guard(None)
    @made.response(200, {"type": "object"})
    def shelf() -> Response:
        """Return an empty object."""
        return Response("{}", content_type="application/json")

    return made


class Shelf:
    """A plugin with the blueprint."""

    def __init__(self, *blueprints: flask_smorest.Blueprint) -> None:
        self.blueprints = blueprints or (blueprint(),)

    @hookimpl
    def ctms_blueprints(self) -> Iterable[flask_smorest.Blueprint]:
        """Yield the blueprints."""
        yield from self.blueprints


SHELF = Shelf()


@pytest.fixture
def ctms_plugins() -> Iterable[object]:
    """Return the bundled plugins and the plugin with the routes."""
    return [*bundled(), SHELF]


@pytest.fixture
def viewer(app: Flask) -> ApiClient:
    """Return a client that may only read."""
    return ApiClient(app.test_client(), tokens().issue(create_client("id_viewer", roles=["viewer"])))


def test_a_view_reads(api: ApiClient, viewer: ApiClient) -> None:
    api.post("/ctms", {"email": {"primary_email": address(), "first_name": "ulysses"}})

    assert viewer.get("/shelf/ulysses").json == {"readers": 1}
    assert viewer.get("/shelf").json == {}


def test_a_view_writes_in_the_guards_transaction(api: ApiClient, viewer: ApiClient) -> None:
    api.post("/ctms", {"email": {"primary_email": address()}})

    assert_error(viewer.put("/shelf/emma", {}), 403, "Permission(s) required: manage_contacts")
    assert_error(api.put("/shelf/bad", {}), 400, "not that one")
    assert_error(api.put("/shelf/worse", {}), 500, "Internal Server Error")
    assert [api.get(f"/shelf/{name}").json["readers"] for name in ("emma", "bad", "worse")] == [0, 0, 0]
    assert api.put("/shelf/emma", {}).status_code == 204
    assert api.get("/shelf/emma").json["readers"] == 1


def test_no_token_no_answer(anonymous: ApiClient) -> None:
    for path in ("/shelf", "/shelf/emma"):
        assert_error(anonymous.get(path), 401, "Not authenticated")
    assert_error(anonymous.put("/shelf/emma", {}), 401, "Not authenticated")


def test_the_routes_are_documented_as_ours_are(api: ApiClient) -> None:
    paths = api.get("/openapi.json").json["paths"]

    read, write = paths["/shelf/{name}"]["get"], paths["/shelf/{name}"]["put"]
    assert (read["x-permission"], write["x-permission"]) == ("view_contacts", "manage_contacts")
    assert read["summary"] == "Return the number of readers."
    assert {"200", "400", "401", "403", "503"} <= set(read["responses"])
    assert read["security"]
    assert "x-permission" not in paths["/shelf"]["get"]
    assert "403" not in paths["/shelf"]["get"]["responses"]


def test_the_routes_are_measured_as_ours_are(api: ApiClient) -> None:
    api.get("/shelf/emma")

    assert 'path_template="/shelf/{name}"' in api.get("/metrics").text


def test_without_the_plugin_the_routes_are_not_there(apps: Apps) -> None:
    assert "/shelf" not in {rule.rule for rule in apps.get(bundled()).url_map.iter_rules()}


def test_routes_that_nothing_guards_are_found(app: Flask) -> None:
    rules = {rule.rule: list(unguarded_methods(app, rule)) for rule in app.url_map.iter_rules()}

    assert rules["/shelf/<name>"] == rules["/shelf"] == []
    assert rules["/__lbheartbeat__"] == ["GET"]


def half_guarded() -> Blueprint:
    """Return a blueprint with a method without a guard."""
    made = Blueprint("Half", __name__)

    @made.route("/half")
    class Half(MethodView):
        """Something."""

        @made.guard("view_contacts")
        def get(self) -> Response:
            """Read."""
            return Response()

        def post(self) -> Response:
            """Write."""
            return Response()

    return made


def plain(rule: str, name: str = "Plain") -> flask_smorest.Blueprint:
    """Return a plain blueprint of flask-smorest, which has no guard."""
    made = flask_smorest.Blueprint(name, __name__)
    made.add_url_rule(rule, view_func=lambda: "")
    return made


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (half_guarded(), "with POST /half, which nothing guards"),
        (plain("/plain"), "with GET /plain, which nothing guards"),
        (plain("/updates"), "with the path /updates, which the service has"),
        (plain("/metrics"), "with the path /metrics, which the service has"),
        (plain("/ctms/<int:number>"), "with the path /ctms/{number}, which the service has"),
        (plain("/x", name="Updates"), "'Updates', a name that the service has"),
    ],
)
def test_harmful_routes_are_refused(apps: Apps, made: flask_smorest.Blueprint, says: str) -> None:
    with pytest.raises(PluginError, match="plugin 'shelf'") as caught:
        apps.get([*bundled(), *points_of([Shelf(made)])])

    assert says in caught.value.message
    assert caught.value.plugins == ("shelf",)


def _text(something: str) -> Response:
    return Response(something)


def test_of_two_that_claim_one_path_both_are_named(apps: Apps) -> None:
    class Other(Shelf):
        """Another plugin with the same routes."""

    second = Blueprint("Other", __name__)
    second.add_url_rule("/shelf/<something>", view_func=second.guard(None)(_text))

    with pytest.raises(PluginError) as caught:
        apps.get(points_of([Other(second), Shelf()]))

    assert set(caught.value.plugins) == {"shelf", "other"}
    assert "which plugin 'other' of an unknown package has" in caught.value.message


def test_commands_are_listed_and_run_under_ours(apps: Apps) -> None:
    @click.command()
    def shelve() -> None:
        """Return the book."""
        click.echo("shelved")

    class Shelving:
        """A plugin with the command."""

        @hookimpl
        def ctms_commands(self) -> list[click.Command]:
            return [shelve]

    runner = apps.get(points_of([Shelving()])).test_cli_runner()

    assert "Return the book." in run(runner, "--help").stdout
    assert run(runner, "shelve").stdout == "shelved\n"
    run(runner, "unshelve", status=2)
