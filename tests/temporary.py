"""Where a test run keeps its files: in memory, if there is room.

Databases that tests create, copy and drop are most of these files. On a disk, the kernel needs four times as much
CPU time for them, and the tests with many databases take an eighth longer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the folder itself
"""Linux's file system in memory. In a container it is often small, or forbids programs."""

NEEDED_BYTES = 8 * 2**30
"""Free memory from which on the files are kept there: several times what the whole test run needs at once."""


def choose_temporary_folder(environment: MutableMapping[str, str]) -> None:
    """Set `TMPDIR` to the folder in memory, unless it is set already, or `is_roomy` says no."""
    if "TMPDIR" not in environment and is_roomy(SHARED_MEMORY):
        environment["TMPDIR"] = str(SHARED_MEMORY)
        tempfile.tempdir = None  # look again


def is_roomy(folder: Path) -> bool:
    """Return whether files may be created and executed in a folder in memory, and there is enough of it."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return (
        os.access(folder, os.W_OK | os.X_OK)
        and not found.f_flag & os.ST_NOEXEC
        and found.f_bavail * found.f_frsize >= NEEDED_BYTES
        and psutil.virtual_memory().available >= NEEDED_BYTES
    )
