"""Slots: numbers that name the metrics files of each process of an instance.

prometheus_client names the files of a process after its id, so every replaced process leaves files behind. Here the
files are named after slots. A process acquires the lowest free slot and holds it by a kernel lock, which ends with the
process. Its successor acquires the slot and continues to count in its files. So no count is lost, the number of files
stays small, and gauges of dead processes can be told from those of living ones.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from prometheus_client import values

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that names the metrics directory; prometheus_client defines it."""

_PREFIX = "ctms-metrics-"
_RUN_LOCK = "run.lock"
_MIN_LEFTOVER_AGE_SECONDS = 60
_POLL_SECONDS = 0.01


class Slots:
    """The slots in a metrics directory, and the one that this process holds.

    The modification time of a slot's lock file is the start of its process's last flush, 0 before the first.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process = 0
        self._held = -1
        self._number = 0

    def acquire(self) -> int:
        """Return this process's slot, and acquire one at the first call; called before every write of a value."""
        if self._process != os.getpid():  # or after a fork: the slot so far is the parent's
            self._acquire_lowest()
        return self._number

    def _acquire_lowest(self) -> None:
        if self._held >= 0:
            os.close(self._held)
        with _locked(self.directory / "slots.lock"):
            if not self.is_in_use():
                for file in self.directory.glob("*.db"):  # of an earlier run
                    file.unlink()
            locks = ((number, _try_lock(self._lock_file(number))) for number in count())
            number, held = next((number, lock) for number, lock in locks if lock is not None)
            os.utime(held, ns=(0, 0))
            for file in self.directory.glob(f"gauge_*_{number}.db"):
                file.unlink()
        self._process, self._held, self._number = os.getpid(), held, number

    def _lock_file(self, number: int) -> Path:
        return self.directory / f"{number}.slot"

    def _held_locks(self) -> list[Path]:
        return [lock for lock in self.directory.glob("*.slot") if _is_held(lock)]

    def is_in_use(self) -> bool:
        """Return whether the run of the directory, or one of its processes, lives."""
        return _is_held(self.directory / _RUN_LOCK) or bool(self._held_locks())

    def files(self) -> list[str]:
        """Return the files to add up: those of all slots, but gauges only of living processes."""
        with _locked(self.directory / "slots.lock"):
            living = {lock.stem for lock in self._held_locks()}
            # An empty file is being created at this moment: prometheus_client cannot read it, and it counts nothing.
            found = sorted(file for file in self.directory.glob("*.db") if file.stat().st_size > 0)
        return [str(file) for file in found if not file.name.startswith("gauge_") or file.stem.split("_")[-1] in living]

    def size(self) -> int:
        """Return the disk space that the metrics files use, in bytes."""
        total = 0
        for file in self.directory.glob("*.db"):
            with suppress(FileNotFoundError):  # its slot is being acquired
                total += file.stat().st_blocks * 512
        return total

    def mark_flushed(self, started_ns: int) -> None:
        """Record that this process has flushed all telemetry from before `started_ns` (Unix time)."""
        self.acquire()
        os.utime(self._held, ns=(started_ns, started_ns))

    def wait_for_flush(self, since_ns: int, timeout_seconds: float) -> None:
        """Wait until the other living processes have flushed their telemetry from before `since_ns`, or the timeout."""
        give_up = time.monotonic() + timeout_seconds
        own = self._lock_file(self.acquire())
        with _locked(self.directory / "slots.lock"):
            others = [lock for lock in self._held_locks() if lock != own]
        while any(0 < lock.stat().st_mtime_ns < since_ns for lock in others) and time.monotonic() < give_up:
            time.sleep(_POLL_SECONDS)


def open_slots() -> Slots | None:
    """Return the slots of this instance, None where `PROMETHEUS_MULTIPROC_DIR` names no directory.

    After the first call, new metrics of this process keep their values in files of the directory.
    """
    name = os.environ.get(DIRECTORY_VARIABLE)
    if not name:
        return None
    slots = _OPENED.get(name)
    if slots is None:
        directory = Path(name)
        directory.mkdir(parents=True, exist_ok=True)
        slots = _OPENED[name] = Slots(directory)
        # prometheus_client's documentation: choose the class before metrics are created.
        values.ValueClass = values.MultiProcessValue(slots.acquire)  # type: ignore[no-untyped-call]
    return slots


_OPENED: dict[str, Slots] = {}


@contextmanager
def run_directory() -> Iterator[Path]:
    """Create the metrics directory of one run of the service, whose processes may come and go; remove it at the end.

    Directories that killed runs have left behind are removed, too.
    """
    _remove_leftovers(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as name:
        directory = Path(name)
        held = _try_lock(directory / _RUN_LOCK)
        try:
            yield directory
        finally:
            if held is not None:
                os.close(held)


def _remove_leftovers(parent: Path) -> None:
    for directory in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            status = directory.lstat()
            # A directory without a run lock is an earlier version's, and a new one may not be locked yet.
            if (
                not (directory / _RUN_LOCK).exists()
                or status.st_uid != os.geteuid()
                or time.time() - status.st_mtime < _MIN_LEFTOVER_AGE_SECONDS
            ):
                continue
            if not Slots(directory).is_in_use():
                shutil.rmtree(directory)  # refuses symbolic links


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, against other processes and other threads."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _try_lock(path: Path) -> int | None:
    """Lock a file while it is open; return its descriptor, None where another process holds the lock."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    lock = _try_lock(path)
    if lock is not None:
        os.close(lock)
    return lock is None
