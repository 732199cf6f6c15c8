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
from tests.temporary import NEEDED_BYTES, choose_temporary_folder, is_roomy


@pytest.fixture(autouse=True)
def found(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A file system and a machine with exactly enough memory; the temporary folder stays as it is."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    disk = SimpleNamespace(f_flag=0, f_bavail=NEEDED_BYTES // 4096, f_frsize=4096, available=NEEDED_BYTES)
    with monkeypatch.context() as patches:
        patches.setattr(os, "statvfs", lambda _: disk)
        patches.setattr(psutil, "virtual_memory", lambda: disk)
        yield disk


def test_memory_is_used_if_there_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "SHARED_MEMORY", tmp_path)
    environment: dict[str, str] = {}

    choose_temporary_folder(environment)

    assert environment == {"TMPDIR": str(tmp_path)}
    assert tempfile.tempdir is None


def test_another_choice_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporary, "SHARED_MEMORY", tmp_path)
    environment = {"TMPDIR": "/elsewhere"}

    choose_temporary_folder(environment)

    assert environment == {"TMPDIR": "/elsewhere"}


@pytest.mark.parametrize(
    "change", [{"f_flag": os.ST_NOEXEC}, {"f_bavail": NEEDED_BYTES // 4096 - 1}, {"available": NEEDED_BYTES - 1}]
)
def test_a_folder_that_is_too_small_or_forbids_programs_is_not_used(
    change: dict[str, int], tmp_path: Path, found: SimpleNamespace
) -> None:
    assert is_roomy(tmp_path)

    vars(found).update(change)

    assert not is_roomy(tmp_path)


def test_a_system_without_such_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    assert not is_roomy(tmp_path / "missing")
