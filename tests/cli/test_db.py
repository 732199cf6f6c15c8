"""`flask ctms db shell` on the embedded PostgreSQL and on an external server."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest

from ctms.cli.db import connection_of
from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url
from ctms.database.postmaster import is_running
from tests.conftest import SECRET_KEY
from tests.docs.messages import is_documented
from tests.serving import FLASK, environment_for, run_flask
from tests.waiting import wait_until

PASSWORD = "p@ss word%"


def test_the_embedded_database(tmp_path: Path) -> None:
    environment = environment_for(tmp_path, PATH="/nowhere") if os.geteuid() else environment_for(tmp_path)
    command = ("ctms", "db", "shell", "--", "-A", "-t")

    asked = "SELECT 1 + 1, current_setting('application_name')"
    done = run_flask(*command, "-c", asked, environment=environment, cwd=tmp_path)
    failed = run_flask(*command, "-c", "SELECT nothing", environment=environment, cwd=tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "2|ctms db shell\n", "")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert 'column "nothing" does not exist' in failed.stderr
    assert not is_running(tmp_path / "postgresql"), "the last one to leave stops the server"


def test_it_reads_standard_input(tmp_path: Path) -> None:
    """Options need no two dashes before them."""
    environment = environment_for(tmp_path)

    done = run_flask("ctms", "db", "shell", "-At", environment=environment, typed="SELECT 7;\n")

    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


SLEEPING = "SELECT true FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep'"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_for_psql(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C stops a statement and not the shell; a signal that ends the shell ends psql, and releases the server."""
    with EmbeddedServer.acquire(tmp_path) as server:
        # A terminal interrupts all processes of its group.
        process = subprocess.Popen(
            [FLASK, "ctms", "db", "shell", "--", "-At"],
            env=environment_for(tmp_path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("SELECT 'begun';\nSELECT pg_sleep(600);\n")
        assert process.stdout.readline() == "begun\n"
        with psycopg.connect(libpq_url(server.url), autocommit=True) as other:  # earlier than that, psql would end
            wait_until(lambda: other.execute(SLEEPING).fetchone())
        if number is signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, errors = process.communicate(timeout=300)

    if number is signal.SIGINT:
        assert process.returncode == 3, "psql's own status, where it has no terminal"
        assert "canceling statement due to user request" in errors
    else:
        assert process.returncode == 128 + number
    assert not is_running(tmp_path / "postgresql")


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, str]:
    """An environment in which psql writes its arguments and its variables."""
    folder = tmp_path / "bin"
    folder.mkdir()
    psql = folder / "psql"
    psql.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n/usr/bin/env | /bin/grep ^PG\nexit 5\n")
    psql.chmod(0o755)
    url = "postgresql://jane:p%40ss%20word%25@db.invalid:6543/ctms?sslmode=verify-full&keepalives_idle=30&sslpassword=x"
    return environment_for(tmp_path, PATH=str(folder), CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY)


def test_an_external_server(recorded: dict[str, str], tmp_path: Path) -> None:
    done = run_flask("ctms", "db", "shell", "--", "-c", "SELECT 1", environment=recorded, cwd=tmp_path)

    assert done.returncode == 5, done.stderr
    arguments, _, variables = done.stdout.partition("PG")
    assert arguments.splitlines() == ["--dbname", "keepalives_idle=30", "-c", "SELECT 1"]
    assert set(f"PG{variables}".splitlines()) == {
        "PGHOST=db.invalid",
        "PGPORT=6543",
        "PGUSER=jane",
        f"PGPASSWORD={PASSWORD}",
        "PGDATABASE=ctms",
        "PGSSLMODE=verify-full",
        "PGAPPNAME=ctms db shell",
    }
    assert not (tmp_path / "postgresql").exists()


def test_without_psql(recorded: dict[str, str], tmp_path: Path) -> None:
    done = run_flask("ctms", "db", "shell", environment={**recorded, "PATH": str(tmp_path)}, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: psql is not on the PATH: install the client programs of PostgreSQL")
    assert is_documented(done.stderr)


def test_no_secret_is_an_argument() -> None:
    rest, variables = connection_of(
        "postgresql://u:first-secret@h/d?sslpassword=second-secret&keepalives=0&application_name=mine&keepalives_count=2"
    )

    assert "secret" not in rest
    assert sorted(rest.split()) == ["keepalives=0", "keepalives_count=2"]
    assert variables["PGPASSWORD"] == "first-secret"
    assert variables["PGAPPNAME"] == "mine"
