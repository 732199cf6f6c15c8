"""Contacts as lines of JSON in a file."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ctms.hooks.manager import load_plugins
from ctms.plugins import ContactState, OperatorError
from ctms.settings import Settings
from ctms.testing import BackendContract
from ctms_plugins.jsonl.journal import Journal, find_problem

JANE = ContactState("jane", {"email": {"email_id": "jane", "first_name": "Zoë 🦊", "last_name": "a\nb\u2028\ud83e"}})
GONE = ContactState("joe", None)
GONE_LINE = {"email_id": "joe", "gone": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "contacts.jsonl"


def journal(path: Path, max_bytes: int = 10**9, every: str = "never") -> Journal:
    """Return the writer."""
    return Journal(path, max_bytes, every)


def lines(path: Path) -> list[Any]:
    """Return the lines of a file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def aside(path: Path) -> list[Path]:
    """Return the files that were put aside, oldest first."""
    return sorted(path.parent.glob("contacts-*.jsonl"))


class TestContract(BackendContract):
    """The contract of backends."""

    name = "jsonl"

    @pytest.fixture
    def ctms_environment(self, path: Path) -> Mapping[str, str]:
        """The plugin is on."""
        return {"CTMS_PLUGIN_JSONL_PATH": str(path)}

    @pytest.fixture(params=["the folder is gone", "the disk is full", "the disk fails"])
    def failing_implementation(
        self, path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Journal:
        """The same while the disk fails."""

        def fails(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        if request.param == "the folder is gone":
            return journal(path.parent / "nowhere" / path.name)
        monkeypatch.setattr(os, "write" if request.param == "the disk is full" else "fsync", fails)
        return journal(path)


class TestLines:
    def test_a_line_is_a_document_or_a_deletion(self, path: Path) -> None:
        journal(path).push([JANE, GONE], "key")
        journal(path).push([JANE], "key")

        assert lines(path) == [JANE.document, GONE_LINE, JANE.document]
        assert path.read_text(encoding="ascii").count("\n") == 3

    def test_others_cannot_read_them(self, path: Path) -> None:
        journal(path).push([JANE], "key")

        assert [file.stat().st_mode & 0o777 for file in path.parent.iterdir()] == [0o600, 0o600]

    def test_nothing_makes_no_file(self, path: Path) -> None:
        journal(path).push([], "key")

        assert list(path.parent.iterdir()) == []

    def test_a_batch_is_on_the_disk_before_it_is_done(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done: list[str] = []

        def noted(name: str) -> None:
            function = getattr(os, name)

            def call(*args: Any) -> Any:
                done.append(name)
                return function(*args)

            monkeypatch.setattr(os, name, call)

        noted("write")
        noted("fsync")
        writes = journal(path)

        writes.push([JANE, GONE, JANE], "key")
        assert done == ["write", "fsync", "fsync"], "once for the file, once for its name in the folder"
        writes.push([JANE], "key")
        assert done[3:] == ["write", "fsync"]


class TestCrashes:
    @pytest.mark.parametrize("size", [1, 100, 65_535, 65_536, 65_537, 200_000])
    def test_a_part_of_a_line_is_taken_away(self, path: Path, size: int) -> None:
        journal(path).push([JANE], "key")
        with path.open("ab") as file:
            file.write(b"x" * size)

        journal(path).push([GONE], "key")

        assert lines(path) == [JANE.document, GONE_LINE]

    def test_a_file_that_is_only_a_part(self, path: Path) -> None:
        path.write_bytes(b'{"email_id": "ja')

        journal(path).push([GONE], "key")

        assert lines(path) == [GONE_LINE]

    def test_a_part_is_not_put_aside(self, path: Path) -> None:
        journal(path).push([JANE], "key")
        with path.open("ab") as file:
            file.write(b"part")

        journal(path, max_bytes=10).push([GONE], "key")

        assert [lines(file) for file in (*aside(path), path)] == [[JANE.document], [GONE_LINE]]

    def test_a_disk_that_gets_full_leaves_no_part(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        journal(path).push([JANE], "key")
        write, room = os.write, [20, 0]

        def short(file: int, data: bytes) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data[: room.pop(0)])

        with monkeypatch.context() as patches:
            patches.setattr(os, "write", short)
            with pytest.raises(OSError, match="No space"):
                journal(path).push([GONE, GONE], "key")
        assert lines(path) == [JANE.document]
        assert path.read_bytes().endswith(b"\n")

        journal(path).push([GONE], "key")
        assert lines(path) == [JANE.document, GONE_LINE]

    def test_a_short_write_is_continued(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))

        journal(path).push([GONE, JANE], "key")

        assert lines(path) == [GONE_LINE, JANE.document]


class TestPuttingAside:
    def test_at_a_size(self, path: Path) -> None:
        size = len(json.dumps(GONE_LINE, separators=(",", ":"))) + 1
        writes = journal(path, max_bytes=2 * size)

        for _ in range(5):
            writes.push([GONE], "key")

        assert [len(lines(file)) for file in (*aside(path), path)] == [2, 2, 1]

    def test_a_batch_that_is_larger_has_a_file_of_its_own(self, path: Path) -> None:
        writes = journal(path, max_bytes=10)

        writes.push([GONE, JANE], "key")
        writes.push([GONE, GONE, GONE], "key")

        assert [len(lines(file)) for file in (*aside(path), path)] == [2, 3]

    @pytest.mark.parametrize(("every", "age", "files"), [("day", 1, 2), ("hour", 1, 2), ("never", 1, 1), ("day", 0, 1)])
    def test_by_the_calendar(self, path: Path, every: str, age: int, files: int) -> None:
        writes = journal(path, every=every)
        writes.push([JANE], "key")
        then = (datetime.now(UTC) - timedelta(days=age)).timestamp()
        os.utime(path, (then, then))

        writes.push([GONE], "key")

        assert len([*aside(path), path]) == files
        assert [line for file in (*aside(path), path) for line in lines(file)] == [JANE.document, GONE_LINE]


def write_many(path: Path, name: str) -> None:
    """Write lines as one of several processes."""
    writes = journal(path, max_bytes=2_000)
    for number in range(50):
        writes.push([ContactState(f"{name}-{number}-{part}", None) for part in range(3)], "key")


def test_several_processes_write_it(path: Path) -> None:
    context = get_context("spawn")
    processes = [context.Process(target=write_many, args=(path, f"p{number}")) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0

    found = [line["email_id"] for file in (*aside(path), path) for line in lines(file)]
    assert sorted(found) == sorted(
        f"p{p}-{number}-{part}" for p in range(3) for number in range(50) for part in range(3)
    )
    batches = [found[start : start + 3] for start in range(0, len(found), 3)]
    assert all(len({one.rpartition("-")[0] for one in batch}) == 1 for batch in batches), "batches stay together"
    assert len(aside(path)) > 3


class TestSettings:
    def declared(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[Any]:
        """Return the plugin's declarations."""
        for name, value in variables.items():
            monkeypatch.setenv(f"CTMS_PLUGIN_JSONL_{name}", value)
        return [one.value for one in load_plugins(Settings(plugins=("jsonl",))).collect("ctms_backends")]

    def test_off_without_a_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.declared(monkeypatch) == []

    def test_on_with_one(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        (found,) = self.declared(monkeypatch, PATH=str(path))

        assert (found.name, found.max_batch, found.concurrency) == ("jsonl", 2_000, 1)
        assert found.description == f"JSON Lines in {path}"

    @pytest.mark.parametrize("place", ["nowhere/contacts.jsonl", "", "contacts.jsonl"])
    def test_a_file_that_cannot_be_written_stops_nothing_and_is_a_warning(
        self, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert len(self.declared(monkeypatch, PATH=str(tmp_path / place))) == 1
        (check,) = load_plugins(Settings(plugins=("jsonl",))).collect("ctms_health_checks")

        problem = check.value.check()

        assert (
            problem
            == {
                "nowhere/contacts.jsonl": "the folder of CTMS_PLUGIN_JSONL_PATH does not exist",
                "": "CTMS_PLUGIN_JSONL_PATH names a folder, not a file",
                "contacts.jsonl": None,
            }[place]
        )

    @pytest.mark.parametrize("denied", ["folder", "file", "lock"])
    def test_a_file_that_is_not_the_services_own_is_a_warning(
        self, denied: str, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        journal(path).push([JANE], "key")
        targets = {"folder": path.parent, "file": path, "lock": path.with_name(f"{path.name}.lock")}
        monkeypatch.setattr(os, "access", lambda one, _mode: one != targets[denied])  # root may write anything

        assert "needs write access to it and its folder" in (find_problem(path) or "")

    @pytest.mark.parametrize(
        ("variables", "said"),
        [
            ({"MAX_BYTES": "0"}, "MAX_BYTES must be 1 or more"),
            ({"EVERY": "week"}, "EVERY must be one of hour, day, never"),
        ],
    )
    def test_invalid_settings_prevent_the_start(
        self, variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(OperatorError, match=said):
            self.declared(monkeypatch, **variables)
