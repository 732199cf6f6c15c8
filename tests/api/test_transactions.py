"""Places where the code of a plugin may use the database, and clear errors elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

import click
import marshmallow as ma
import pytest
from flask import Flask, Response
from sqlalchemy import text

from ctms.clients.tokens import tokens
from ctms.current import current_request
from ctms.database.engine import db
from ctms.errors import PluginError
from ctms.outbox.lanes import HANDLER, Lane
from ctms.plugins import (
    Blueprint,
    HealthCheck,
    ScalarQuery,
    Waitlist,
    connection,
    fetch_scalar,
    hookimpl,
    reading,
    writing,
)
from ctms.sync.calls import Calls
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.commands import CommandRunner
from ctms.testing.contacts import contact_body
from ctms.testing.http import ApiClient
from ctms.testing.plugins import points_of

ADD = "INSERT INTO roles (name) VALUES ('of a plugin')"
COUNT = "SELECT count(*) FROM roles WHERE name = 'of a plugin'"
MISPLACED = r"is for guarded views: elsewhere use reading\(\) or writing\(\)"

blueprint = Blueprint("Lending", __name__, url_prefix="/lending")


@blueprint.route("/read")
@blueprint.guard("view_contacts")
def read() -> Response:
    """Read outside the guard."""
    with reading():
        return Response()


@blueprint.route("/write", methods=["POST"])
@blueprint.guard("view_contacts")
def write() -> Response:
    """Write outside the guard's transaction, which would be committed for any caller."""
    with writing() as acquired:
        acquired.execute(ADD)
    return Response()


beside = Blueprint("Beside", __name__, url_prefix="/beside")


def write_beside(response: Response | None = None) -> Response | None:
    """Write before or after a view, for any caller."""
    with writing() as acquired:
        acquired.execute(ADD)
    return response


def write_before() -> None:
    """Write before the guard."""
    if current_request().args.get("when") == "before":
        write_beside()


def write_after(response: Response) -> Response:
    """Write after the guard."""
    if current_request().args.get("when") == "after":
        write_beside()
    return response


beside.before_request(write_before)
beside.after_request(write_after)


@beside.route("/<when>", methods=["GET", "POST"])
@beside.guard("view_contacts")
def nothing(when: str) -> Response:
    """Do nothing."""
    return Response(when)


@click.command("lending")
@click.option("--fail", is_flag=True)
@click.option("--misplaced", is_flag=True)
def command(fail: bool, misplaced: bool) -> None:
    """Add a role and count."""
    if misplaced:
        connection()
    with writing() as acquired:
        acquired.execute(ADD)
        if fail:
            raise LookupError("fails")
    with reading() as acquired:
        (found,) = acquired.execute(COUNT).fetchone() or (None,)
        click.echo(found)


def check() -> str | None:
    """Read in a health check."""
    with reading() as acquired:
        return None if acquired.execute("SELECT 1").fetchone() == (1,) else "odd"


def rule(fields: dict[str, object]) -> dict[str, object]:
    """Read in a rule, where I/O is forbidden."""
    if fields:
        with reading():
            pass
    return fields


class Lending:
    """A plugin that uses the database everywhere."""

    @hookimpl
    def ctms_blueprints(self) -> Iterator[Blueprint]:
        yield blueprint
        yield beside

    @hookimpl
    def ctms_commands(self) -> Iterator[click.Command]:
        yield command

    @hookimpl
    def ctms_health_checks(self) -> Iterator[HealthCheck]:
        yield HealthCheck(name="lending", check=check, timeout=10)

    @hookimpl
    def ctms_waitlists(self) -> Iterator[Waitlist]:
        yield Waitlist(name="lending", title="Lending", check=rule)


PLUGIN = Lending()


@pytest.fixture
def lending(apps: Apps) -> Iterator[Flask]:
    """The app with the plugin."""
    with rolled_back(apps.get(points_of([PLUGIN]))) as app:
        yield app


@pytest.fixture
def caller(lending: Flask) -> ApiClient:
    """Return a client that calls the app with every permission."""
    return ApiClient(lending.test_client(), tokens().issue(create_client("id_lending", roles=["admin"])))


def stored() -> int:
    return int(db.session.scalar(text(COUNT)) or 0)


def test_a_command_reads_and_writes(lending: Flask) -> None:
    runner = CommandRunner(lending)

    assert runner.ctms("lending").output == "1\n"
    db.session.execute(text("DELETE FROM roles WHERE name = 'of a plugin'"))
    db.session.commit()
    assert isinstance(runner.ctms("lending", "--fail").exception, LookupError)
    assert stored() == 0


def test_a_command_works_after_a_request(lending: Flask, caller: ApiClient) -> None:
    assert caller.get("/ctms?primary_email=nobody@example.com").json == []

    assert CommandRunner(lending).ctms("lending").output == "1\n"


def test_a_command_has_no_connection_of_a_view(lending: Flask) -> None:
    result = CommandRunner(lending).ctms("lending", "--misplaced")

    assert str(result.exception) == "connection() is for guarded views: elsewhere use reading() or writing()"


def test_a_view_has_the_connection_of_its_guard_only(caller: ApiClient, caplog: pytest.LogCaptureFixture) -> None:
    assert caller.get("/lending/read").status_code == 500
    assert caller.post("/lending/write").status_code == 500

    raised = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert raised == [
        f"{name}() is not for requests: a view has connection(), and waitlist rules do no I/O"
        for name in ("reading", "writing")
    ]
    assert stored() == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_functions_around_a_guarded_view_do_not_write(
    lending: Flask, caller: ApiClient, caplog: pytest.LogCaptureFixture, when: str, method: str
) -> None:
    for client in (ApiClient(lending.test_client(), None), caller):
        assert client.request(method, f"/beside/x?when={when}").status_code == 500

    raised = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert raised
    assert all("writing() is not for requests" in line for line in raised)
    assert stored() == 0


def test_unauthorized_callers_write_nothing_outside_the_guard(lending: Flask) -> None:
    nobody = ApiClient(lending.test_client(), tokens().issue(create_client("id_nobody")))

    assert nobody.post("/lending/write").status_code == 403
    assert stored() == 0


def test_rules_do_not_read(caller: ApiClient) -> None:
    body = contact_body(waitlists=[{"name": "lending", "fields": {"a": 1}}])

    assert caller.post("/ctms", body).status_code == 500


def test_a_health_check_reads(caller: ApiClient) -> None:
    assert caller.get("/__heartbeat__").json["checks"]["lending"] == "ok"


def test_a_call_of_the_background_service_reads(lending: Flask) -> None:  # noqa: ARG001  its context
    def call() -> object:
        with reading() as acquired:
            return acquired.execute("SELECT 1").fetchone()

    assert Calls().call(Lane(HANDLER, "lending", 0), call, 30) == (1,)


def test_outside_the_app_they_say_where_they_work() -> None:
    for acquire in (reading, writing):
        with pytest.raises(RuntimeError, match=r"needs the app: use it in commands, health checks"), acquire():
            pass
    with pytest.raises(RuntimeError, match=MISPLACED):
        connection()
    with pytest.raises(RuntimeError, match=MISPLACED):
        fetch_scalar(ScalarQuery("SELECT 1", []))


def test_at_start_the_message_names_the_hook(apps: Apps) -> None:
    class Early:
        @hookimpl
        def ctms_waitlists(self) -> Iterator[Waitlist]:
            with reading():
                yield Waitlist(name="early", title="Early", schema=ma.Schema)

    with pytest.raises(PluginError, match=r"ctms_waitlists failed with RuntimeError: reading\(\) needs the app"):
        apps.get(points_of([Early()]))
