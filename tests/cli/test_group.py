"""Shared behaviour of all commands: errors, documentation, and running as processes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click
import psycopg
import pytest
import requests
from click.testing import CliRunner
from flask import Flask
from flask.cli import with_appcontext
from flask.testing import FlaskCliRunner
from procrastinate.exceptions import ConnectorException
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from ctms.app import create_app
from ctms.cli.group import AppOwner, Group
from ctms.clients.models import Role
from ctms.database.engine import db, release_database
from ctms.database.operator_errors import database_problem
from ctms.database.pool import writing
from ctms.settings import Settings
from tests.cli.running import run
from tests.conftest import SECRET_KEY, empty_database
from tests.docs.messages import is_documented
from tests.serving import FLASK, Served, environment_for, run_flask
from tools import cli_reference

# Every command that needs the database, called rightly.
COMMANDS = [
    "clients list",
    "clients show id_x",
    "clients create id_x x@example.com",
    "clients delete id_x --yes",
    "clients enable id_x",
    "clients disable id_x",
    "clients limit id_x --rate 100/s",
    "clients rotate-secret id_x --overlap 1h",
    "clients grant id_x viewer",
    "clients revoke id_x viewer",
    "roles list",
    "roles show viewer",
    "roles create other",
    "roles delete viewer --yes",
    "roles grant viewer view_contacts",
    "roles revoke viewer view_contacts",
    "permissions list",
    "permissions create other",
    "permissions delete other --yes",
]


def test_every_command_is_tested_here() -> None:
    groups = ("clients ", "roles ", "permissions ")
    paths = [context.command_path.removeprefix("flask ctms ") for _, context in cli_reference.commands()]

    assert sorted(path for path in paths if path.startswith(groups)) == sorted(
        " ".join(command.split()[:2]) for command in COMMANDS
    )


def test_the_reference_page_is_up_to_date() -> None:
    assert cli_reference.PAGE.read_text() == cli_reference.page(), "run `python -m tools.cli_reference`"


@pytest.fixture(scope="module")
def no_database(postgres: str) -> Iterator[FlaskCliRunner]:
    """Runs commands in an app whose database does not exist."""
    with _runner(make_url(postgres).set(database="nowhere").render_as_string(hide_password=False)) as runner:
        yield runner


@pytest.fixture(scope="module")
def no_tables(postgres: str, worker_id: str) -> Iterator[FlaskCliRunner]:
    """Runs commands in an app whose database is empty."""
    with _runner(empty_database(postgres, f"empty_{worker_id}")) as runner:
        yield runner


@contextmanager
def _runner(url: str) -> Iterator[FlaskCliRunner]:
    app = create_app(Settings(db_url=url, secret_key=SECRET_KEY, use_mozlog=False))
    yield app.test_cli_runner()
    release_database(app)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_cannot_be_reached_is_one_line(no_database: FlaskCliRunner, command: str) -> None:
    refused = run(no_database, *command.split(), status=1)

    assert refused.stderr.startswith("Error: the database cannot be reached: ")
    assert "nowhere" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_database_that_is_not_migrated_is_one_line(no_tables: FlaskCliRunner, command: str) -> None:
    refused = run(no_tables, *command.split(), status=1)

    assert "flask db upgrade" in refused.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_a_setting_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("PORT", "70000")

    refused = run(CliRunner(), *command.split(), status=1)

    assert refused.stderr.startswith("Error: PORT ")


def test_a_data_folder_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for variable in ("CTMS_DB_URL", "CTMS_SECRET_KEY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CTMS_DATA_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("CTMS_USE_MOZLOG", "false")

    assert "CTMS_DATA_DIR" in run(CliRunner(), "clients", "list", status=1).stderr


def test_a_fault_of_ours_is_not_blamed_on_the_database() -> None:
    assert database_problem(ValueError("a bug")) is None


REPEATING = """
    INSERT INTO emails (email_id, primary_email)
    SELECT gen_random_uuid(), 'jane@example.com' FROM generate_series(1, 2)"""


def _with_the_session() -> None:
    db.session.execute(text(REPEATING))


def _with_a_connection() -> None:
    with writing() as connection:
        connection.execute(REPEATING)


def _below_another_error() -> None:
    try:
        _with_a_connection()
    except psycopg.Error as error:
        raise ConnectorException from error


def _while_another_is_handled() -> None:
    try:
        _with_a_connection()
    except psycopg.Error:
        raise LookupError  # noqa: B904


def _in_a_session_that_has_failed() -> None:
    def fail(session: Session, _context: object) -> None:
        session.execute(text(REPEATING))

    event.listen(db.session, "after_flush", fail)
    db.session.add(Role(name="other"))
    try:
        with suppress(IntegrityError):
            db.session.commit()
        db.session.execute(text("SELECT 1"))
    finally:
        event.remove(db.session, "after_flush", fail)


UNIQUE = "UniqueViolation: duplicate key value violates unique constraint"


@pytest.mark.parametrize("kind", [AppOwner, Group])
@pytest.mark.parametrize(
    ("work", "told"),
    [
        (_with_the_session, UNIQUE),
        (_with_a_connection, UNIQUE),
        (_below_another_error, UNIQUE),
        (_while_another_is_handled, UNIQUE),
        (_in_a_session_that_has_failed, "PendingRollbackError"),
    ],
)
def test_no_error_of_the_database_shows_values(
    work: Callable[[], None], told: str, kind: type[AppOwner], app: Flask
) -> None:
    group = kind("ctms", commands=[click.Command("work", callback=with_appcontext(work))])

    failed = app.test_cli_runner().invoke(group, ["work"])

    assert failed.stderr.startswith(f"Error: the command work failed with {told}")
    assert failed.stderr.endswith(": report it\n")
    assert len(failed.stderr.splitlines()) == 1
    assert isinstance(failed.exception, SystemExit)
    assert is_documented(failed.stderr)
    assert "jane" not in failed.output


def test_the_line_of_a_fault_of_ours_is_named(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "ctms.cli.group")
    with app.app_context():
        db.session.execute(text("ALTER TABLE api_client ADD CONSTRAINT odd CHECK (email <> 'jane@example.com')"))
        db.session.commit()

    refused = run(app.test_cli_runner(), "clients", "create", "id_odd", "jane@example.com", status=1).stderr

    assert refused.startswith("Error: the command clients failed with CheckViolation: new row for relation")
    assert re.search(r", in /.*/ctms/clients/.*\.py, line \d+: report it$", refused)
    assert "command clients failed" in caplog.messages
    assert "jane" not in refused


def test_other_errors_of_commands_keep_their_traceback(app: Flask) -> None:
    def fail() -> None:
        raise LookupError

    group = Group("ctms", commands=[click.Command("work", callback=fail)])

    assert isinstance(app.test_cli_runner().invoke(group, ["work"]).exception, LookupError)


def test_a_process_that_cannot_connect(tmp_path: Path) -> None:
    url = "postgres://ctms:pa55word@127.0.0.1:1/ctms"

    refused = run_flask(
        "ctms",
        "clients",
        "list",
        environment=environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY),
        cwd=tmp_path,
    )

    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("Error: the database cannot be reached: ")
    assert len(refused.stderr.splitlines()) == 1
    assert "pa55word" not in refused.stderr


def test_a_process_on_a_fresh_embedded_database(tmp_path: Path) -> None:
    refused = run_flask("ctms", "clients", "list", environment=environment_for(tmp_path / "data"), cwd=tmp_path)

    assert refused.returncode == 1
    assert "flask ctms serve" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_processes_beside_the_service(served: Served, tmp_path: Path) -> None:
    made = served.flask("ctms", "clients", "create", "id_beside", "beside@example.com", "--role=viewer", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.split()[-1]

    answer = requests.post(f"{served.url}/token", auth=("id_beside", secret), timeout=30)
    assert answer.status_code == 200
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    search = f"{served.url}/ctms?primary_email=jane@example.com"
    assert session.get(search, timeout=30).status_code == 200

    served.flask("ctms", "clients", "disable", "id_beside", cwd=tmp_path)
    assert session.get(search, timeout=30).json() == {"detail": "API Client has been disabled"}

    assert served.flask("ctms", "clients", "show", "id_nobody", cwd=tmp_path).returncode == 4
    refused = served.flask("ctms", "clients", "delete", "id_beside", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert served.flask("ctms", "clients", "delete", "id_beside", "--yes", cwd=tmp_path).stdout == "id_beside\n"
    assert session.get(search, timeout=30).json() == {"detail": "Could not validate credentials"}


def test_a_terminal_is_asked(served: Served) -> None:
    served.flask("ctms", "roles", "create", "asked")

    declined = _answer(served, "n\n", "ctms", "roles", "delete", "asked")
    assert "Delete the role asked? [y/N]" in declined.stderr
    assert (declined.returncode, declined.stdout) == (1, "")

    confirmed = _answer(served, "y\n", "ctms", "roles", "delete", "asked")
    assert (confirmed.returncode, confirmed.stdout) == (0, "asked\n")  # it was still there


def _answer(served: Served, typed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard input is a terminal at which someone types."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed.encode())
        return subprocess.run(
            [FLASK, *arguments],
            env=served.environment,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
