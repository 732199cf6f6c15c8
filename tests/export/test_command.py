"""`flask ctms export`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flask import Flask

from ctms.database.pool import Connection
from ctms.settings import Settings
from ctms.testing.commands import CommandRunner
from tests.cli.running import run, run_json
from tests.export.conftest import by_id, documents, lines, read
from tests.forked import ForkedCommand
from tests.serving import FLASK

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def cli(app: Flask) -> CommandRunner:
    """A runner of commands."""
    return CommandRunner(app)


def names(folder: Path) -> list[str]:
    """Return the names in a directory."""
    return sorted(path.name for path in folder.iterdir())


def test_into_a_directory(cli: CommandRunner, connection: Connection, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"

    found = run_json(cli, "export", "--output", str(out), "--part-size", "100", "--connections", "2")

    assert found == json.loads((out / "manifest.json").read_text())
    assert (found["format"], found["compression"], found["filter"], found["fields"]) == ("ndjson", "zstd", None, None)
    assert by_id(lines(out)) == documents(connection)


@pytest.mark.parametrize(("name", "format_"), [("a.ndjson", "ndjson"), ("a.ndjson.zst", "ndjson"), ("a.csv", "csv")])
def test_into_a_file(cli: CommandRunner, people: int, tmp_path: Path, name: str, format_: str) -> None:
    result = run(cli, "export", "--output", str(tmp_path / name), "--format", format_)

    assert f"contacts:       {people}" in result.stdout
    manifest = json.loads((tmp_path / f"{name}.manifest.json").read_text())
    assert [one["file"] for one in manifest["parts"]] == [name]
    assert manifest["compression"] == ("zstd" if name.endswith(".zst") else "none")
    assert read(tmp_path / name)[:1] in {b"{", b"a"}
    assert names(tmp_path) == [name, f"{name}.manifest.json"]


def test_to_standard_output(cli: CommandRunner, connection: Connection, people: int) -> None:
    result = run(cli, "export", "--output", "-")

    assert by_id(json.loads(line) for line in result.stdout.splitlines()) == documents(connection)
    assert result.stderr.startswith(f"contacts: {people:,}; later changes: /updates?deleted=true&start=")


CONDITION = {"mailing_country": "ca", "has_fxa": True}


@pytest.mark.parametrize("kind", ["json", "file.json", "file.toml"])
def test_filter_and_fields(cli: CommandRunner, connection: Connection, tmp_path: Path, kind: str) -> None:
    given = json.dumps(CONDITION)
    if kind != "json":
        path = tmp_path / kind
        path.write_text(given if kind.endswith("json") else 'mailing_country = "ca"\nhas_fxa = true\n')
        given = str(path)

    found = run_json(
        cli, "export", "--output", str(tmp_path / "out"), "--filter", given, "--fields", "email.email_id, fxa.fxa_id"
    )

    expected = documents(connection, "mailing_country = 'ca' AND f.email_id IS NOT NULL")
    assert found["filter"] == CONDITION
    assert found["fields"] == {"email": ["email_id"], "fxa": ["fxa_id"]}
    assert by_id(lines(tmp_path / "out")) == {
        email_id: {"email": {"email_id": email_id}, "fxa": {"fxa_id": one["fxa"]["fxa_id"]}}
        for email_id, one in expected.items()
    }


def test_a_filter_in_toml_may_have_dates(cli: CommandRunner, tmp_path: Path, people: int) -> None:
    file = tmp_path / "filter.toml"
    file.write_text("create_timestamp.since = 2020-01-01\nupdate_timestamp.since = 2020-01-01T00:00:00Z\n")

    found = run_json(cli, "export", "--output", str(tmp_path / "out"), "--filter", str(file))

    assert found["contacts"] == people
    assert found["filter"] == {
        "create_timestamp": {"since": "2020-01-01"},
        "update_timestamp": {"since": "2020-01-01T00:00:00+00:00"},
    }


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--output", "a.csv"], "is the name of a file in csv: pass --format csv"),
        (["--output", "a.csv", "--format", "csv", "--compression", "zstd"], "ends in .zst if it is compressed"),
        (["--output", "a.parquet.zst", "--format", "parquet"], "its name ends in .parquet"),
        (["--output", "out", "--filter", "{"], "is not JSON: Expecting "),
        (["--output", "out", "--filter", "{}"], "an empty condition would match every contact"),
        (["--output", "out", "--filter", '{"country": "ca"}'], "country: there is no such test"),
        (["--output", "out", "--filter", "nothing.toml"], "nothing.toml cannot be read: No such file"),
        (["--output", "out", "--fields", "emails"], "emails: there is no such field"),
        (["--output", "out", "--fields", " , "], "name one or more fields"),
        (["--output", "out", "--max-duration", "long"], "a duration is a number"),
        ([], "Missing option '--output'"),
    ],
)
def test_wrong_usage(cli: CommandRunner, tmp_path: Path, arguments: list[str], problem: str) -> None:
    given = [str(tmp_path / one) if one.startswith(("a.", "out")) else one for one in arguments]

    result = run(cli, "export", *given, status=2)

    assert problem in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_export(cli: CommandRunner, tmp_path: Path) -> None:
    out, file = str(tmp_path / "out"), str(tmp_path / "a.ndjson")
    for output in (out, file):
        run(cli, "export", "--output", output)

        result = run(cli, "export", "--output", output, status=10)

        assert "pass --overwrite" in result.stderr
        run(cli, "export", "--output", output, "--overwrite")


def test_a_directory_that_cannot_be_created(cli: CommandRunner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = run(cli, "export", "--output", str(tmp_path / "file" / "out"), status=1)

    assert "cannot be used: Not a directory" in result.stderr


@contextmanager
def running(settings: Settings, output: Path, connection: Connection, *arguments: str) -> Iterator[ForkedCommand]:
    """Run the command in a process, which waits for the database after it has created its file."""
    environment = {**os.environ, "CTMS_DB_URL": str(settings.db_url), "CTMS_SECRET_KEY": str(settings.secret_key)}
    command = ("--app", "wsgi", "ctms", "export", "--output", str(output), *arguments)
    folder = output.parent.with_name(f"{output.parent.name}-command")
    partial = output.with_name(f"{output.name}.partial")
    with connection.transaction():
        connection.execute("LOCK TABLE newsletters")
        process = ForkedCommand(*command, environment=environment, folder=folder)
        try:
            give_up = time.monotonic() + 60
            while not partial.exists():
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < give_up
                time.sleep(0.02)
            yield process
        finally:
            process.kill()
            process.wait(300)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(
    export_settings: Settings, connection: Connection, tmp_path: Path, number: signal.Signals
) -> None:
    with running(export_settings, tmp_path / "a.ndjson", connection) as process:
        wait_for_copies(connection)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)

    assert process.returncode == 3
    assert errors == "Error: stopped: nothing of the export is left; run it again\n"
    assert list(tmp_path.iterdir()) == []


def wait_for_copies(connection: Connection) -> None:
    """Wait until the command waits for the locked table: it handles signals by now."""
    give_up = time.monotonic() + 60
    waiting = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'newsletters'::regclass"
    while connection.execute(waiting).fetchone() != (True,):
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_killed_one_leaves_no_manifest(
    cli: CommandRunner, export_settings: Settings, connection: Connection, tmp_path: Path
) -> None:
    with running(export_settings, tmp_path / "a.ndjson", connection) as process:
        process.kill()
        process.communicate(timeout=300)

    assert names(tmp_path) == ["a.ndjson.partial"]
    run(cli, "export", "--output", str(tmp_path / "a.ndjson"))
    assert names(tmp_path) == ["a.ndjson", "a.ndjson.manifest.json"]


def test_too_long(cli: CommandRunner, connection: Connection, tmp_path: Path) -> None:
    with connection.transaction():
        connection.execute("LOCK TABLE newsletters")

        result = run(cli, "export", "--output", str(tmp_path / "out"), "--max-duration", "1s", status=1)

    assert "the export did not end within 1 seconds" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_standard_output_on_a_full_disk(export_settings: Settings) -> None:
    environment = {
        **os.environ,
        "CTMS_DB_URL": str(export_settings.db_url),
        "CTMS_SECRET_KEY": str(export_settings.secret_key),
    }

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [FLASK, "--app", "wsgi", "ctms", "export", "--output", "-"],
            env=environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=300,
        )

    assert done.returncode == 1
    assert "Error: no space is left on the disk: free some, and run the command again\n" in done.stderr
    assert "Traceback" not in done.stderr
