"""The embedded PostgreSQL of a service that runs as root: folders keep their modes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ctms.database.embedded import EmbeddedServer
from ctms.database.generated_secrets import load_or_create_secret
from ctms.database.pool import libpq_url
from ctms.database.storage import is_root
from ctms.database.system_user import POSTGRES_PROGRAMS, USER, first_closed, place_programs
from ctms.errors import OperatorError

pytestmark = pytest.mark.skipif(not is_root(), reason="what a service does that runs as root")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a separate temporary folder of the system for this test, with a short path: sockets need it."""
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        Path(folder).chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def closed(temporary: Path) -> Path:
    """A folder in the temporary folder as `mktemp -d` makes it."""
    folder = temporary / "closed"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def unchanged(tmp_path: Path, temporary: Path) -> Iterator[None]:
    """No folder above those of a test gets another mode."""
    before = modes(tmp_path), modes(temporary)
    yield
    assert (modes(tmp_path), modes(temporary)) == before


def modes(folder: Path) -> dict[Path, int]:
    return {one: one.stat().st_mode & 0o7777 for one in (folder, *folder.parents)}


def count(server: EmbeddedServer, sql: str) -> tuple[object, ...] | None:
    with psycopg.connect(libpq_url(server.url)) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchone() if cursor.description else None


def test_data_in_a_closed_temporary_folder_are_placed_beside_it(closed: Path, temporary: Path) -> None:
    before = modes(closed)
    with EmbeddedServer.acquire(closed / "data") as server:
        count(server, "CREATE TABLE kept AS SELECT 7 AS number")
    with EmbeddedServer.acquire(closed / "data") as server:
        assert count(server, "SELECT number FROM kept") == (7,)

    assert modes(closed) == before
    link = closed / "data" / "postgresql"
    assert link.is_symlink()
    assert link.resolve().parent == temporary
    assert link.stat().st_mode & 0o077 == 0
    assert len(list(temporary.glob("ctms-postgresql-*"))) == 1


def test_data_from_before_the_folder_was_closed_move(closed: Path) -> None:
    closed.chmod(0o711)
    with EmbeddedServer.acquire(closed / "data") as server:
        count(server, "CREATE TABLE kept AS SELECT 7 AS number")
    assert not (closed / "data" / "postgresql").is_symlink()
    closed.chmod(0o700)

    with EmbeddedServer.acquire(closed / "data") as server:
        assert count(server, "SELECT number FROM kept") == (7,)
        closed.chmod(0o700)
        with EmbeddedServer.acquire(closed / "data") as same:
            assert same.url == server.url

    assert (closed / "data" / "postgresql").is_symlink()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_closed_folder_for_data_that_are_to_stay_is_refused(temporary: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)

    with pytest.raises(OperatorError) as refused:
        EmbeddedServer.acquire(home / "ctms")

    assert f"as the user {USER}, who cannot enter {home}: set CTMS_DATA_DIR" in refused.value.message
    assert "\n" not in refused.value.message
    assert home.stat().st_mode & 0o777 == 0o700
    assert not (home / "ctms" / "postgresql").exists()
    assert not list(temporary.iterdir())


def test_folders_created_by_ctms_ignore_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        load_or_create_secret(tmp_path / "made" / "data", "key")
        with EmbeddedServer.acquire(tmp_path / "made" / "data") as server:
            assert count(server, "SELECT 1") == (1,)
    finally:
        os.umask(before)

    assert (tmp_path / "made" / "data" / "postgresql").stat().st_mode & 0o077 == 0
    assert (tmp_path / "made" / "data" / "key").stat().st_mode & 0o077 == 0


def test_programs_that_the_user_cannot_reach_are_copied(closed: Path, tmp_path: Path) -> None:
    wheel = POSTGRES_PROGRAMS.parents[1]
    shutil.copytree(wheel / "pginstall18", closed / wheel.name / "pginstall18", symlinks=True)
    shutil.copytree(wheel.with_name(f"{wheel.name}.libs"), closed / f"{wheel.name}.libs")
    programs = closed / wheel.name / "pginstall18" / "bin"
    (programs / "initdb").chmod(0o700)
    before = modes(programs)

    found = [place_programs(programs, USER, tmp_path / "shared") for _ in range(2)]

    assert found[0] == found[1]
    assert found[0].is_relative_to(tmp_path / "shared")
    assert first_closed(found[0] / "initdb", USER) is None
    assert place_programs(found[0], USER, tmp_path / "other") == found[0], "the user can run them"
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert modes(programs) == before
