"""Files of exports: complete with their manifest, or gone."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import threading
import time
from io import BytesIO, RawIOBase
from pathlib import Path
from typing import Any

import pytest

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import ConflictError, OperatorError
from ctms.export import files
from ctms.export.rendering import make_slices
from ctms.export.run import run_export
from ctms.export.snapshot import Snapshot
from ctms.export.targets import FileTarget, PartsTarget, StreamTarget, Target
from ctms.history.feeds import settled
from ctms.settings import Settings
from tests.export.conftest import documents, fill, options

# Other processes of tests use the same server.
_EXPORTS = "application_name = 'ctms export' AND datname = current_database()"
_CONNECTIONS = f"SELECT count(*) FROM pg_stat_activity WHERE {_EXPORTS}"


def wait_for_end(connection: Connection) -> None:
    """Wait until the server has no connection of an export."""
    give_up = time.monotonic() + 60
    while connection.execute(_CONNECTIONS).fetchone() != (0,):
        assert time.monotonic() < give_up, "the server still has the snapshot"
        time.sleep(0.02)


def make_target(folder: Path, kind: str, format_: Any) -> Target:
    return PartsTarget(folder, format_, 20) if kind == "parts" else FileTarget(folder / f"all{format_.suffix}", format_)


class Interruption(Exception):
    """Stops an export."""


def interrupt(contacts: int, _estimate: int | None) -> None:
    if contacts:
        raise Interruption


@pytest.mark.usefixtures("app", "people")
def test_the_manifest_describes_the_parts(connection: Connection, tmp_path: Path) -> None:
    chosen = options(compression="zstd", connections=2)
    revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 100))

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest == result.manifest
    assert [manifest["schema_version"]] == list(revision or ())
    assert manifest["contacts"] == len(documents(connection)) == sum(one["contacts"] for one in manifest["parts"])
    assert sorted(one["file"] for one in manifest["parts"]) == sorted(
        path.name for path in (tmp_path / "out").iterdir() if path.name != "manifest.json"
    )
    for part in manifest["parts"]:
        data = (tmp_path / "out" / part["file"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
    assert all(one["contacts"] <= 100 for one in manifest["parts"])
    assert re.fullmatch(r"/updates\?deleted=true&start=[-0-9T%AB.]+", manifest["updates"]["path"])


@pytest.mark.parametrize("umask", [0o000, 0o022])
@pytest.mark.parametrize("kind", ["parts", "file"])
@pytest.mark.usefixtures("app", "people")
def test_only_the_owner_can_read(tmp_path: Path, kind: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        chosen = options()
        (tmp_path / "out").mkdir()
        run_export(chosen, make_target(tmp_path / "out", kind, chosen.format))
    finally:
        os.umask(before)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {0o600}


@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["parts", "file"])
@pytest.mark.usefixtures("app", "people")
def test_an_interrupted_export_leaves_nothing(connection: Connection, tmp_path: Path, kind: str, format_: str) -> None:
    chosen = options(format_, compression="zstd")
    chosen.format.block = 1
    target = make_target(tmp_path / "out" if kind == "parts" else tmp_path, kind, chosen.format)

    with pytest.raises(Interruption):
        run_export(chosen, target, interrupt)

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    wait_for_end(connection)


@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["parts", "file"])
@pytest.mark.usefixtures("app", "people")
def test_a_full_disk(tmp_path: Path, kind: str, format_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = options(format_, compression="zstd")
    chosen.format.block = 1000
    open_ = files.open_partial
    monkeypatch.setattr("ctms.export.targets.open_partial", lambda path: FullDisk(open_(path)))
    target = make_target(tmp_path / "out" if kind == "parts" else tmp_path, kind, chosen.format)

    with pytest.raises(OSError, match="No space left") as raised:
        run_export(chosen, target)

    assert raised.value.errno == errno.ENOSPC
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class FullDisk(RawIOBase):
    """A file on a disk that has no space after the first bytes."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._left = 10

    def write(self, data: Any) -> int:
        if not self._left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written: int = self._file.write(bytes(data)[: self._left])
        self._left -= written
        return written

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number

    def close(self) -> None:
        self._file.close()
        super().close()


@pytest.mark.usefixtures("app", "people")
def test_the_time_limit_ends_the_snapshot(connection: Connection) -> None:
    chosen = options(max_seconds=1, connections=2)
    chosen.format.block = 1
    stuck = Stuck()

    try:
        with pytest.raises(OperatorError, match="did not end within 1 seconds"):
            run_export(chosen, StreamTarget(stuck, chosen.format))

        wait_for_end(connection)
    finally:
        stuck.released.set()


class Stuck(BytesIO):
    """A stream whose reader does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def write(self, data: Any) -> int:
        if data:
            self.released.wait(60)
        return len(data)


@pytest.mark.usefixtures("app", "people")
def test_the_server_ends_it_when_the_client_does_not(connection: Connection) -> None:
    chosen = options(max_seconds=1, connections=1)
    chosen.format.block = 1

    if connection.info.server_version < 170000:
        pytest.skip("older servers cancel no statement while its client does not read")

    def hold(_contacts: int, _estimate: int | None) -> None:
        wait_for_end(connection)

    stuck = Stuck()
    try:
        with pytest.raises(OperatorError, match="did not end within 1 seconds"):
            run_export(chosen, StreamTarget(stuck, chosen.format), hold)
    finally:
        stuck.released.set()


@pytest.mark.usefixtures("app", "people")
def test_updates_do_not_wait_for_it(connection: Connection) -> None:
    chosen = options(max_seconds=30, connections=2)
    chosen.format.block = 1
    seen = []

    def look(_contacts: int, _estimate: int | None) -> None:
        with pool.acquire() as other:
            row = settled(other).fetchone()
            assert row is not None
            seen.append(row[0] == row[1])
            locks = connection.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                f" WHERE {_EXPORTS} AND mode NOT IN ('AccessShareLock', 'ExclusiveLock')"
            ).fetchone()
        assert locks == (0,)
        stuck.released.set()

    stuck = Stuck()
    run_export(chosen, StreamTarget(stuck, chosen.format), look)

    assert seen
    assert all(seen)


@pytest.mark.usefixtures("app", "people")
class TestAnExistingDirectory:
    def export(self, folder: Path, *, overwrite: bool = False, format_: str = "ndjson") -> None:
        chosen = options(format_)
        run_export(chosen, PartsTarget(folder, chosen.format, 50, overwrite=overwrite))

    def test_an_export_is_not_overwritten(self, tmp_path: Path) -> None:
        self.export(tmp_path)
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}

        with pytest.raises(ConflictError, match="has an export: name another directory, or pass --overwrite"):
            self.export(tmp_path)

        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    def test_it_is_with_overwrite(self, tmp_path: Path, connection: Connection) -> None:
        self.export(tmp_path)
        connection.execute("DELETE FROM emails WHERE mailing_country = 'ca'")

        self.export(tmp_path, overwrite=True, format_="csv")

        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert {path.name for path in tmp_path.iterdir()} == {
            "manifest.json",
            *(one["file"] for one in manifest["parts"]),
        }
        assert manifest["contacts"] == len(documents(connection))

    def test_what_a_killed_one_left_behind(self, tmp_path: Path) -> None:
        (tmp_path / "contacts-00001.ndjson.zst.partial").touch()

        with pytest.raises(ConflictError, match="what is left of an export that did not end"):
            self.export(tmp_path)
        self.export(tmp_path, overwrite=True)

        assert not list(tmp_path.glob("*.partial"))

    def test_other_files_are_never_removed(self, tmp_path: Path) -> None:
        (tmp_path / "contacts.csv").touch()

        with pytest.raises(ConflictError, match=r"belong to no export, such as contacts\.csv"):
            self.export(tmp_path, overwrite=True)

        assert (tmp_path / "contacts.csv").exists()


@pytest.mark.usefixtures("app")
def test_slices_reach_the_last_id(connection: Connection, tmp_path: Path) -> None:
    for number in (0, 1, 2**127, 2**128 - 1):
        connection.execute(
            "INSERT INTO emails (email_id, primary_email) VALUES (%s::text::uuid, %s)", (f"{number:032x}", str(number))
        )
    chosen = options(connections=5)

    result = run_export(chosen, PartsTarget(tmp_path / "out", chosen.format, 50))

    assert result.manifest["contacts"] == 4
    fill(connection, 10)


@pytest.mark.usefixtures("app", "people")
def test_no_plan_compares_each_contact_with_each_entry(export_settings: Settings) -> None:
    snapshot = Snapshot(str(export_settings.db_url), {}, 60)
    try:
        snapshot.take()
        copying = snapshot.begin()
        query = options("csv").format.statement(None, ()).build(make_slices(5_000)[7])
        select = query.removeprefix("COPY (").rpartition(") TO STDOUT")[0]
        plan = "".join(line for (line,) in copying.execute(f"EXPLAIN {select}").fetchall())
    finally:
        snapshot.close()

    assert "newsletters" in plan
    assert "Nested Loop" not in plan
