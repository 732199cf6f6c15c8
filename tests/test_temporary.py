"""Where a test run keeps its files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests import temporary
from tests.prepared import FOLDER_OF_RUN
from tests.temporary import NEEDED_BYTES, folder_of_runs, is_roomy


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A file system and a machine with exactly enough memory; the file system is at `tmp_path`."""
    monkeypatch.setattr(temporary, "SHARED_MEMORY", tmp_path)
    found = SimpleNamespace(f_flag=0, f_bavail=NEEDED_BYTES // 4096, f_frsize=4096, available=NEEDED_BYTES)
    with monkeypatch.context() as patches:
        patches.setattr(os, "statvfs", lambda _: found)
        patches.setattr(psutil, "virtual_memory", lambda: found)
        yield found


@pytest.mark.usefixtures("memory")
def test_memory_is_used_if_there_is_enough(tmp_path: Path) -> None:
    assert folder_of_runs({}) == tmp_path


@pytest.mark.usefixtures("memory")
def test_the_choice_of_the_environment_is_kept() -> None:
    assert folder_of_runs({"TMPDIR": tempfile.gettempdir()}) == Path(tempfile.gettempdir())


@pytest.mark.parametrize(
    "change", [{"f_flag": os.ST_NOEXEC}, {"f_bavail": NEEDED_BYTES // 4096 - 1}, {"available": NEEDED_BYTES - 1}]
)
def test_memory_that_is_too_small_or_forbids_programs_is_not_used(
    change: dict[str, int], tmp_path: Path, memory: SimpleNamespace
) -> None:
    assert is_roomy(tmp_path)

    vars(memory).update(change)

    assert not is_roomy(tmp_path)
    assert folder_of_runs({}) == Path(tempfile.gettempdir())


def test_a_system_without_such_a_folder(tmp_path: Path) -> None:
    assert not is_roomy(tmp_path / "missing")


def test_the_temporary_folder_is_the_folder_of_the_run(shared_folder: Path) -> None:
    assert shared_folder.is_relative_to(tempfile.gettempdir())
    assert tempfile.gettempdir() == os.environ["TMPDIR"] == os.environ[FOLDER_OF_RUN]
