"""Where a test run keeps its files: in memory, if there is room.

Databases that tests create, copy and drop are most of these files. On a disk, the kernel needs four times as much
CPU time for them, and tests with many databases take an eighth longer.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import psutil

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  the folder itself
"""Linux's file system in memory. In a container it is often small, or forbids programs."""

NEEDED_BYTES = 6 * 2**30
"""Free memory from which on the files are kept there: at least twice what all tests need at once."""


def folder_of_runs(environment: Mapping[str, str]) -> Path:
    """Return the folder in memory if `is_roomy`; otherwise, or if `TMPDIR` is set, the system's temporary folder."""
    if "TMPDIR" not in environment and is_roomy(SHARED_MEMORY):
        return SHARED_MEMORY
    return Path(tempfile.gettempdir())


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
