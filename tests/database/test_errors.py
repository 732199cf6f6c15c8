"""A database problem that an operator can fix is one line without secrets, in every command that connects."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url
from tests.conftest import SECRET_KEY
from tests.docs.messages import is_documented
from tests.serving import environment_for, run_flask

PASSWORD = "hid%64en/w?rd"
HINT = "percent-encoded: @ as %40"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server with a role that needs a password, and may do nothing in the database."""
    folder = tmp_path_factory.mktemp("secured")
    with EmbeddedServer.acquire(folder) as running:
        rules = folder / "postgresql" / "pg_hba.conf"
        rules.write_text(f"local all secured scram-sha-256\n{rules.read_text()}")
        with psycopg.connect(libpq_url(running.url), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE secured LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("SELECT pg_reload_conf()")
        yield running.url


def url_of(server: str, password: str | None, database: str = "postgres") -> str:
    url = make_url(server).set(username="secured", password=password, database=database)
    return url.render_as_string(hide_password=False)


def refused(url: str, folder: Path, *arguments: str) -> str:
    """Run a command that must fail with one line; returns the line."""
    keys = {"CTMS_SECRET_KEY": SECRET_KEY, "CTMS_ERASURE_KEY": SECRET_KEY}  # a missing one is worth another line
    environment = environment_for(folder, CTMS_DB_URL=url, FLASK_APP="wsgi", PORT="10999", **keys)
    done: subprocess.CompletedProcess[str] = run_flask(*arguments, environment=environment, cwd=folder)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert done.stdout == ""
    assert is_documented(line), line
    return line


@pytest.mark.parametrize(
    "command",
    [
        "db upgrade",
        "db downgrade",
        "db current",
        "db check",
        "db stamp head",
        "ctms clients list",
        "ctms delete-bulk --email jane@example.com --yes",
        "ctms worker --once",
        "ctms serve",
    ],
)
def test_a_wrong_password(server: str, tmp_path: Path, command: str) -> None:
    line = refused(url_of(server, "hidden-word"), tmp_path, *command.split())

    assert "the database cannot be reached: " in line
    assert HINT in line
    assert "hidden-word" not in line


@pytest.mark.parametrize("command", ["db upgrade", "ctms clients list"])
def test_a_missing_database(server: str, tmp_path: Path, command: str) -> None:
    url = make_url(server).set(database="missing").render_as_string()

    line = refused(url, tmp_path, *command.split())

    assert "the database cannot be reached: " in line
    assert "missing" in line
    assert HINT not in line, "no password was asked for"


def test_a_role_that_may_not_make_tables(server: str, tmp_path: Path) -> None:
    assert "the database does not allow it: permission denied for schema public" in refused(
        url_of(server, PASSWORD), tmp_path, "db", "upgrade"
    )


@pytest.mark.parametrize("command", ["db upgrade", "ctms clients list", "ctms serve", "ctms settings"])
def test_a_password_that_is_not_percent_encoded(tmp_path: Path, command: str) -> None:
    line = refused("postgresql://ctms:first@second@127.0.0.1:1/ctms", tmp_path, *command.split())

    assert line.startswith("Error: CTMS_DB_URL has a special character that is not percent-encoded")
    assert "%40" in line
    assert "second" not in line
