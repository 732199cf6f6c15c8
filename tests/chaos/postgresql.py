"""PostgreSQL killed with -9, as by the kernel when memory is exhausted."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

RECOVERY_TIMEOUT_IN_SECONDS = 120


def kill(folder: Path, *, children: bool = True) -> None:
    """Kill the embedded server whose data are below `folder`: all its processes at once, or the first one only."""
    first = psutil.Process(int((folder / "postgresql" / "postmaster.pid").read_text().split()[0]))
    processes = [first, *(first.children(recursive=True) if children else [])]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(processes, timeout=RECOVERY_TIMEOUT_IN_SECONDS)


def wait_until_it_answers(url: str) -> None:
    """Wait until the server with this libpq URL was restarted and has recovered."""
    give_up = time.monotonic() + RECOVERY_TIMEOUT_IN_SECONDS
    while True:
        try:
            with psycopg.connect(url, connect_timeout=10) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
        else:
            return
