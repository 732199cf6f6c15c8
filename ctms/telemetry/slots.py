"""The files in which the processes of one instance add up their metrics, and who of them writes which.

prometheus_client names the files of a process after its id, so every process that is replaced leaves some behind, for
ever. Here they are named after slots: a process takes the lowest one that is free, and holds it by a lock of the
kernel's, which ends with the process however it ends. The one that comes next takes the slot and counts on from what
is in its files. So nothing that was counted is lost, there are never more files than processes at once, and what a dead
process said of its state (gauges) is known for what it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path

from prometheus_client import values

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder; prometheus_client's."""

SHEETS = "sheet"
"""How the names of sheets (`ctms.telemetry.sheets`) end; they begin with the number of the slot."""

_PREFIX = "ctms-metrics-"
_RUN = "run.lock"
_SETTLED_IN_SECONDS = 60


class Slots:
    """The slots in a folder, and which of them is this process's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process = 0
        self._held: int | None = None
        self._number = 0

    def own(self) -> int:
        """Return this process's slot; asked before every value that is written, and taken at the first time."""
        if self._process != os.getpid():  # or after a fork: the slot so far is the parent's
            self._take()
        return self._number

    def _take(self) -> None:
        if self._held is not None:
            os.close(self._held)
        with locked(self.folder / "slots.lock"):
            if not any(_is_held(lock) for lock in (*self.folder.glob("*.slot"), self.folder / _RUN)):
                for file in self._all():  # of an earlier run
                    file.unlink()
            for number in count():
                held = _try_lock(self.folder / f"{number}.slot")
                if held is not None:
                    break
            for file in self.folder.glob(f"gauge_*_{number}.db"):
                file.unlink()
        self._process, self._held, self._number = os.getpid(), held, number

    def files(self) -> list[str]:
        """Return the files that count: those of all slots, but gauges only of processes that live."""
        with locked(self.folder / "slots.lock"):
            living = {lock.stem for lock in self.folder.glob("*.slot") if _is_held(lock)}
            # An empty one is being created at this moment: prometheus_client could not read it, and it counts nothing.
            found = sorted(file for file in self.folder.glob("*.db") if file.stat().st_size > 0)
        return [str(file) for file in found if not file.name.startswith("gauge_") or file.stem.split("_")[-1] in living]

    def size(self) -> int:
        """Return how many bytes the files of metrics take on the disk."""
        total = 0
        for file in self._all():
            with suppress(FileNotFoundError):  # of a slot that is just being taken
                total += file.stat().st_blocks * 512
        return total

    @contextmanager
    def orphans(self) -> Iterator[list[Path]]:
        """Give the sheets of slots that no process holds, and let none take one meanwhile."""
        self.own()  # who asks may need one inside, where none can be taken
        with locked(self.folder / "slots.lock"):
            yield [file for file in self.sheets() if not _is_held(self.folder / f"{file.name.split('.')[0]}.slot")]

    def _all(self) -> Iterator[Path]:
        return chain(self.folder.glob("*.db"), self.sheets())

    def sheets(self) -> Iterator[Path]:
        """Give the sheets of all slots."""
        return self.folder.glob(f"*.{SHEETS}")


def slots() -> Slots | None:
    """Return the slots of this instance, None where `PROMETHEUS_MULTIPROC_DIR` names no folder.

    From the first call on, the metrics that this process makes are kept in the folder's files.
    """
    name = os.environ.get(FOLDER)
    if not name:
        return None
    made = _MADE.get(name)
    if made is None:
        folder = Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        made = _MADE[name] = Slots(folder)
        # As prometheus_client's docs have it: the class is chosen before metrics are made.
        values.ValueClass = values.MultiProcessValue(made.own)  # type: ignore[no-untyped-call]
    return made


_MADE: dict[str, Slots] = {}


@contextmanager
def folder_of_run() -> Iterator[Path]:
    """Make the folder for one run of the service, whose processes may come and go, and remove it at the end.

    Those that killed runs have left behind are removed, too.
    """
    _remove_leftovers(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        held = _try_lock(folder / _RUN)
        try:
            yield folder
        finally:
            if held is not None:
                os.close(held)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            # One without locks is an earlier version's, and one that was just made may not be locked yet.
            if (
                not (folder / _RUN).exists()
                or about.st_uid != os.geteuid()
                or time.time() - about.st_mtime < _SETTLED_IN_SECONDS
            ):
                continue
            if not any(_is_held(lock) for lock in (*folder.glob("*.slot"), folder / _RUN)):
                shutil.rmtree(folder)  # refuses symbolic links


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that the file stands for, against other processes and other threads."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _try_lock(path: Path) -> int | None:
    """Lock a file for as long as it is open; returns its descriptor, None where another process has locked it."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_held(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
