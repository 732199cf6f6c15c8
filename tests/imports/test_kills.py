"""Imports that are killed, stopped, or lose the database: continued, they end as one that was not."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ctms.database.pool import Connection, libpq_url
from ctms.settings import Settings
from ctms.testing.commands import CommandRunner
from tests.forked import ForkedCommand
from tests.imports.listed import WEEKLY, counts, run_import, scalar, stored, write
from tests.sessions import client_sessions
from tests.waiting import wait_until

ROWS = 3_000
PEOPLE = 1_200
_EVENTS = """
    SELECT e.primary_email, h.kind, h.name, h.action, count(*)
    FROM subscription_events h JOIN emails e USING (email_id) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A list with several rows for each person, the last of which counts."""
    weekly = ("yes", "yes", "no")
    lines = [f"p{one % PEOPLE}@example.com,Name {one},{weekly[one // PEOPLE]}\n" for one in range(ROWS)]
    return write(tmp_path / "list.csv", "Email,Name,Weekly\n" + "".join(lines))


@contextmanager
def running(settings: Settings, listed: Path, *more: str) -> Iterator[ForkedCommand]:
    """Run the command in a process."""
    environment = {**os.environ, "CTMS_DB_URL": str(settings.db_url), "CTMS_SECRET_KEY": str(settings.secret_key)}
    given = write(listed.with_name("map.toml"), WEEKLY)
    command = ("--app", "wsgi", "ctms", "import", str(listed), "--map", str(given), "--mode", "upsert")
    options = ("--batch-size", "100", "--json", *more)
    folder = listed.with_name(f"command-{uuid.uuid4()}")
    process = ForkedCommand(*command, *options, environment=environment, folder=folder)
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


@contextmanager
def holding_up(settings: Settings) -> Iterator[Callable[[], None]]:
    """Have an import wait for a contact that another transaction has begun to create; returns what ends the wait."""
    other = psycopg.connect(libpq_url(str(settings.db_url)))
    other.execute("INSERT INTO emails (primary_email) VALUES ('p1100@example.com')")
    with closing(other):
        yield other.close


def wait_for_some(connection: Connection, process: ForkedCommand, number: int = 200) -> None:
    """Wait until the import has stored contacts."""
    give_up = time.monotonic() + 120
    while scalar(connection, "SELECT count(*) FROM emails") < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def kill(settings: Settings, connection: Connection, listed: Path, number: int, *options: str) -> None:
    """Kill an import that has stored this many contacts, and wait until its processes have ended."""
    others = client_sessions(str(settings.db_url))
    with running(settings, listed, *options) as process:
        wait_for_some(connection, process, number)
        process.kill()
        process.communicate(timeout=60)
    wait_until(lambda: client_sessions(str(settings.db_url)) <= others)


def state(connection: Connection) -> Any:
    """Return the contacts without ids and times, and their numbers of events."""
    return stored(connection), connection.execute(_EVENTS).fetchall()


@pytest.fixture
def expected(cli: CommandRunner, connection: Connection, listed: Path) -> Any:
    """The contacts after an import that nothing stops."""
    given = write(listed.with_name("map.toml"), WEEKLY)
    run_import(cli, listed, "--map", given, "--mode", "upsert", "--processes", "1")
    found = stored(connection)
    connection.execute("DELETE FROM emails")
    return found


@pytest.mark.parametrize("options", [["1", "--resume"], ["2", "--resume"], ["2"]], ids=str)
def test_a_killed_one_is_continued(
    export_settings: Settings, connection: Connection, listed: Path, expected: Any, options: list[str]
) -> None:
    with_report = "--resume" in options
    options = ["--processes", *options, *(["--report", str(listed.with_name("report.csv"))] if with_report else [])]
    kill(export_settings, connection, listed, 300, *options)

    with running(export_settings, listed, *options) as process:
        output, errors = process.communicate(timeout=120)

    assert (process.returncode, errors) == (0, "")
    assert (json.loads(output).get("skipped", 0) > 0) == with_report
    assert stored(connection) == expected


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_ends_it_after_the_batches(
    export_settings: Settings, connection: Connection, listed: Path, expected: Any, processes: str
) -> None:
    report = listed.with_name("report.csv")
    options = ("--processes", processes, "--report", str(report), "--resume")
    with holding_up(export_settings) as release, running(export_settings, listed, *options) as process:
        wait_for_some(connection, process)
        process.send_signal(signal.SIGTERM)
        release()
        output, errors = process.communicate(timeout=60)

    assert process.returncode == 3
    assert errors == "Error: stopped: what is counted is done; run it again for the rest\n"
    done = json.loads(output)["rows"]
    assert 0 < done < ROWS
    assert len(report.read_text().splitlines()) == done + 1

    with running(export_settings, listed, *options) as process:
        output, _ = process.communicate(timeout=120)
    assert json.loads(output)["skipped"] == done
    assert json.loads(output)["rows"] == ROWS - done
    assert stored(connection) == expected


def test_a_killed_process_of_it_is_noticed(export_settings: Settings, connection: Connection, listed: Path) -> None:
    with (
        holding_up(export_settings) as release,
        running(export_settings, listed, "--processes", "2") as process,
    ):
        wait_for_some(connection, process)
        [child, *_] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        release()
        output, errors = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "Error: a process of the import has ended: it was killed" in errors
    assert 0 < json.loads(output)["rows"] < ROWS


def test_a_lost_database_is_reported(export_settings: Settings, connection: Connection, listed: Path) -> None:
    with holding_up(export_settings), running(export_settings, listed, "--processes", "2") as process:
        wait_for_some(connection, process)
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        output, errors = process.communicate(timeout=60)

    assert process.returncode == 3
    assert "what is counted is done; run it again for the rest" in errors
    assert "Traceback" not in errors
    assert json.loads(output)["rows"] < ROWS


def test_a_second_one_changes_nothing(cli: CommandRunner, connection: Connection, listed: Path) -> None:
    given = write(listed.with_name("map.toml"), WEEKLY)
    path = write(listed.with_name("once.csv"), "".join(listed.read_text().splitlines(keepends=True)[:1_000]))
    options = ("--map", given, "--mode", "upsert", "--json")
    run_import(cli, path, *options)
    before = state(connection)

    assert counts(run_import(cli, path, *options)) == {"rows": 999, "unchanged": 999}
    assert state(connection) == before
