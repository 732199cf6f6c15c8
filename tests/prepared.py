"""A database folder as the first start makes it, made once for a test run and copied for every service in it.

To make the server's data and to run the migrations takes longer than all else that a start does. Nothing of it is
skipped in what is tested: the copy is what a service finds that was stopped before its first API client was made.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

from ctms.testing.servers import let_server_enter

FOLDER_OF_RUN = "PYTEST_DEBUG_TEMPROOT"
"""The variable that names the folder of a test run, for all its processes."""

_CONFIGURATION = """
# Killed processes lose nothing by it, only a machine that fails does.
fsync = off
full_page_writes = off
"""


def prepare(folder: Path, flask: str, environment: dict[str, str]) -> None:
    """Give `folder` a migrated database unless it has one, or there is no test run that would keep it."""
    run = os.environ.get(FOLDER_OF_RUN)
    if run is None or (folder / "postgresql").exists():
        return
    with Path(run, "prepared.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepared = Path(run, "prepared")
        if not prepared.exists():
            _make(prepared, flask, environment)
    folder.mkdir(parents=True, exist_ok=True)
    _copy(prepared / "postgresql", folder)


def _make(prepared: Path, flask: str, environment: dict[str, str]) -> None:
    draft = prepared.with_name("drafted")
    draft.mkdir()
    let_server_enter(draft)
    command = [flask, "--app", "wsgi", "db", "upgrade"]
    variables = {**environment, "CTMS_DATA_DIR": str(draft)}
    root = Path(__file__).parent.parent
    done = subprocess.run(command, env=variables, cwd=root, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with (draft / "postgresql" / "postgresql.conf").open("a") as configuration:
        configuration.write(_CONFIGURATION)
    draft.rename(prepared)


def _copy(data: Path, folder: Path) -> None:
    """Copy with owners and modes: PostgreSQL insists on them, and does not run as root."""
    subprocess.run(["cp", "-a", data, folder], check=True, timeout=300)
