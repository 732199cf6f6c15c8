"""Whether the first process of an embedded PostgreSQL was killed, by its pid file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ctms.database import postmaster


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_server_that_left_its_pid_file_was_killed(tmp_path: Path, ended: int) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{ended}\n")

    assert postmaster.is_killed(tmp_path)


@pytest.mark.parametrize("successor", [None, 1], ids=["stopped", "restarted"])
def test_a_server_that_stops_while_it_is_looked_at_was_not_killed(
    tmp_path: Path, ended: int, successor: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends after its pid file was read."""
    pid_file = tmp_path / "postmaster.pid"
    pid_file.write_text(f"{ended}\n")
    is_postgres = postmaster._is_postgres

    def stop_first(number: int) -> bool:
        if successor is None:
            pid_file.unlink()
        else:
            pid_file.write_text(f"{successor}\n")
        return is_postgres(number)

    monkeypatch.setattr(postmaster, "_is_postgres", stop_first)

    assert not postmaster.is_killed(tmp_path)
