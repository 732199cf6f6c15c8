"""The commands for many contacts as processes: stopped, killed and delayed, while the service runs."""

from __future__ import annotations

import csv
import json
import os
import pty
import random
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.forked import ForkedCommand
from tests.serving import FLASK, Served, serve
from tests.system.conftest import Connect
from tests.waiting import wait_until

PEOPLE = 3_000
_FILL = """
    INSERT INTO emails (email_id, primary_email, email_format, email_lang, has_opted_out_of_email, double_opt_in)
    SELECT gen_random_uuid(), kind || i || '@example.com', 'H', 'en', false, false
    FROM generate_series(1, %s) i, unnest(ARRAY['doomed-', 'kept-']) kind"""
_PARTS = """
    INSERT INTO newsletters (email_id, name, subscribed, format, lang)
    SELECT email_id, 'weekly', true, 'H', 'en' FROM emails"""
_STATE = """
    SELECT count(*), md5(string_agg(e::text || n::text, '' ORDER BY e.email_id))
    FROM emails e JOIN newsletters n USING (email_id) WHERE primary_email LIKE %s"""

_HANDLER = """
from ctms.plugins import DeletionHandler, hookimpl


class Nowhere:
    def erase(self, identities):
        pass


@hookimpl
def ctms_deletion_handlers():
    yield DeletionHandler(name="nowhere", implementation=Nowhere())
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a separate service, with a deletion handler that is never called: no worker runs."""
    library = tmp_path_factory.mktemp("library")
    (library / "nowhere.py").write_text(_HANDLER)
    described = library / "nowhere-1.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: nowhere\nVersion: 1\n")
    (described / "entry_points.txt").write_text("[ctms]\nnowhere = nowhere\n")
    with serve(tmp_path_factory.mktemp("bulk"), PYTHONPATH=str(library)) as running:
        yield running


@pytest.fixture
def connection(database: Connect) -> psycopg.Connection:
    """A connection to the service's database, with people in it, half of them doomed, and no records."""
    connection = database()
    connection.autocommit = True
    connection.execute("TRUNCATE emails, erasures, erasure_tasks CASCADE")
    connection.execute(_FILL, (PEOPLE,))
    connection.execute(_PARTS)
    connection.execute("ANALYZE")
    return connection


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """The list of the doomed."""
    path = tmp_path / "doomed.csv"
    rows = [f"Doomed-{number}@Example.com,2023-01-05,bounced\n" for number in range(1, PEOPLE + 1)]
    path.write_text("email,date,reason\n" + "".join(rows))
    return path


def begin(served: Served, *arguments: str | Path) -> ForkedCommand:
    folder = served.folder / f"command-{uuid.uuid4()}"
    return ForkedCommand("ctms", *map(str, arguments), environment=served.environment, folder=folder)


def count(connection: psycopg.Connection, query: str) -> int:
    found = connection.execute(query).fetchone()
    assert found is not None
    return int(found[0])


def doomed(connection: psycopg.Connection) -> int:
    return count(connection, "SELECT count(*) FROM emails WHERE primary_email LIKE 'doomed-%'")


def wait_until_some_are_gone(connection: psycopg.Connection, process: ForkedCommand, of: int = PEOPLE) -> None:
    give_up = time.monotonic() + 200
    while doomed(connection) == of:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)


def kill(connection: psycopg.Connection, process: ForkedCommand) -> None:
    """Kill a command, and wait until the server has ended what it had begun, such as its last COMMIT."""
    process.kill()
    process.communicate()
    busy = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'ctms' AND state <> 'idle' AND pid <> pg_backend_pid()"""
    wait_until(lambda: count(connection, busy) == 0)


def check_all_is_done(connection: psycopg.Connection, kept: Any) -> None:
    assert doomed(connection) == 0
    assert connection.execute(_STATE, ("kept-%",)).fetchone() == kept, "others were touched"
    assert count(connection, "SELECT sum(contacts) FROM erasures") == PEOPLE
    assert count(connection, "SELECT count(*) FROM erasure_addresses") == PEOPLE
    assert count(connection, "SELECT sum(pending) FROM erasure_handlers") == PEOPLE
    assert count(connection, "SELECT count(DISTINCT identities ->> 'primary_email') FROM erasure_tasks") == PEOPLE
    assert count(connection, "SELECT count(*) FROM erasure_tasks") == PEOPLE


def outcomes(*reports: Path) -> dict[str, str]:
    """Return the outcome of each address in the reports; a later, more specific one counts."""
    found: dict[str, str] = {}
    for report in reports:
        with report.open(newline="") as file:
            for row in csv.DictReader(file):
                if found.get(row["address"]) != "erased":
                    found[row["address"]] = row["outcome"]
    return found


def test_ctrl_c_and_sigterm_lose_nothing(
    served: Served, connection: psycopg.Connection, listed: Path, tmp_path: Path
) -> None:
    kept = connection.execute(_STATE, ("kept-%",)).fetchone()
    report = tmp_path / "r.csv"
    arguments = ("delete-bulk", "--email-file", listed, "--yes", "--json", "--report", report, "--append")
    told = []
    for number in (signal.SIGINT, signal.SIGTERM):
        left = doomed(connection)
        # With pauses so long that the signal comes first, however busy the machine is.
        process = begin(served, *arguments, "--batch-size", "20", "--pause", "1")
        wait_until_some_are_gone(connection, process, left)
        process.send_signal(number)
        output, errors = process.communicate()
        assert process.returncode == 3, errors
        assert errors.splitlines()[-1].startswith("Error: stopped: ")
        told.append(json.loads(output))
        assert told[-1]["stopped"] is True
        assert told[-1]["left"] > 0
    assert sum(one["erased"] for one in told) == PEOPLE - doomed(connection)

    last = served.flask("ctms", *map(str, arguments))

    assert last.returncode == 0, last.stderr
    assert sum(one["erased"] for one in [*told, json.loads(last.stdout)]) == PEOPLE
    check_all_is_done(connection, kept)
    assert list(outcomes(report).values()) == ["erased"] * PEOPLE


def test_kill_9_at_random_moments_loses_nothing(
    served: Served, connection: psycopg.Connection, listed: Path, tmp_path: Path
) -> None:
    kept = connection.execute(_STATE, ("kept-%",)).fetchone()
    chance = random.Random()  # noqa: S311
    reports: list[Path] = []
    # Small batches with rests: however fast the machine is, and however busy, there is something left to kill.
    slowly = ("--batch-size", "10", "--pause", "0.1")
    while len(reports) < 4 and (left := doomed(connection)):
        reports.append(tmp_path / f"{len(reports)}.csv")
        process = begin(served, "delete-bulk", "--email-file", listed, "--yes", *slowly, "--report", reports[-1])
        wait_until_some_are_gone(connection, process, left)
        time.sleep(chance.uniform(0, 0.3))
        kill(connection, process)
    assert len(reports) > 1, "nothing was left to do after the first kill"

    reports.append(tmp_path / "last.csv")
    last = served.flask("ctms", "delete-bulk", "--email-file", str(listed), "--yes", "--report", str(reports[-1]))

    assert last.returncode == 0, last.stderr
    check_all_is_done(connection, kept)
    found = outcomes(*reports)
    assert len(found) == PEOPLE
    assert set(found.values()) <= {"erased", "erased before"}


def test_opting_out_is_taken_up_after_kill_9(served: Served, connection: psycopg.Connection, listed: Path) -> None:
    kept = connection.execute(_STATE, ("kept-%",)).fetchone()
    query = "SELECT count(*) FROM emails WHERE has_opted_out_of_email AND unsubscribe_reason = 'bounced'"
    process = begin(served, "opt-out", listed, "--yes", "--batch-size", "50", "--pause", "1")
    give_up = time.monotonic() + 200
    while count(connection, query) == 0:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    kill(connection, process)
    done = count(connection, query)
    assert 0 < done < PEOPLE

    last = served.flask("ctms", "opt-out", str(listed), "--yes", "--json")

    assert last.returncode == 0, last.stderr
    told = json.loads(last.stdout)
    assert (told["opted_out"], told["opted_out_before"]) == (PEOPLE - done, done)
    assert count(connection, query) == PEOPLE
    assert connection.execute(_STATE, ("kept-%",)).fetchone() == kept


def test_a_locked_contact_fails_without_the_others(
    served: Served, connection: psycopg.Connection, database: Connect, listed: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r.csv"
    holder = database()
    holder.execute("SELECT FROM emails WHERE primary_email = 'doomed-77@example.com' FOR UPDATE")

    arguments = ("--email-file", str(listed), "--yes", "--batch-size", "10", "--report", str(report))
    held = served.flask("ctms", "delete-bulk", *arguments, timeout=300)

    assert held.returncode == 3
    assert held.stderr.splitlines()[-2:] == [
        "line 78: others held the contact too long (LockNotAvailable)",
        "Error: addresses that failed: 1",
    ]
    assert doomed(connection) == 1
    assert outcomes(report)["Doomed-77@Example.com"] == "failed"

    holder.rollback()
    assert served.flask("ctms", "delete-bulk", "--email-file", str(listed), "--yes").returncode == 0
    assert doomed(connection) == 0


def test_a_database_that_ends_the_connection(
    served: Served, connection: psycopg.Connection, listed: Path, tmp_path: Path
) -> None:
    kept = connection.execute(_STATE, ("kept-%",)).fetchone()
    report = tmp_path / "r.csv"
    arguments = ("delete-bulk", "--email-file", listed, "--yes", "--report", report, "--append")
    process = begin(served, *arguments, "--batch-size", "20", "--pause", "1")
    wait_until_some_are_gone(connection, process)
    connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ctms'")
    output, errors = process.communicate()

    assert process.returncode == 3, errors
    assert errors.splitlines()[-1].startswith("Error: the database cannot be reached: ")
    assert "erased:" in output
    assert served.flask("ctms", *map(str, arguments)).returncode == 0
    check_all_is_done(connection, kept)


def test_readers_and_writers_go_on_meanwhile(served: Served, connection: psycopg.Connection, listed: Path) -> None:
    with served.session() as session:
        process = begin(served, "delete-bulk", "--email-file", listed, "--yes", "--forget")
        answers = 0
        while process.poll() is None:
            found = session.get(f"{served.url}/ctms?primary_email=kept-1@example.com", timeout=30)
            changed = session.patch(
                f"{served.url}/ctms/{found.json()[0]['email']['email_id']}",
                json={"email": {"first_name": f"{answers}"}},
                timeout=30,
            )
            assert (found.status_code, changed.status_code) == (200, 200)
            answers += 1
        process.communicate()

    assert process.returncode == 0
    assert answers > 0
    assert doomed(connection) == 0
    refused = requests.post(
        f"{served.url}/ctms",
        json={"email": {"primary_email": "doomed-1@example.com"}},
        headers={"Authorization": f"Bearer {served.token()}"},
        timeout=30,
    )
    assert refused.status_code == 403
    connection.execute("TRUNCATE suppressions")


def test_a_terminal_gets_a_confirmation_and_a_progress_bar(
    served: Served, connection: psycopg.Connection, listed: Path
) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [FLASK, "ctms", "delete-bulk", "--email-file", str(listed)],
        env={**served.environment, "TERM": "xterm", "COLUMNS": "100"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    os.write(ours, b"y\n")
    shown = b""
    give_up = time.monotonic() + 200
    while process.poll() is None:
        assert time.monotonic() < give_up
        if select.select([ours], [], [], 0.1)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # its end, on Linux
                break
    output, _ = process.communicate(timeout=200)
    os.close(ours)

    assert process.returncode == 0, shown.decode()
    assert b"Delete 3,000 contacts permanently? (0 addresses are unknown) [y/N]" in shown
    assert b"3000/3000" in shown
    assert b"/s, 0:00:00 left" in shown
    assert "erased:         3000" in output
    assert doomed(connection) == 0
