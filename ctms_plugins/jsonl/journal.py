"""The file of JSON Lines, and its rotation."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ctms.plugins import ContactState, Outcomes

PERIODS = {"hour": "%Y%m%dT%H", "day": "%Y%m%d", "never": ""}
"""Intervals of the rotation, and the part of a time that identifies the interval."""

_BLOCK = 65_536


def find_problem(path: Path) -> str | None:
    """Return why the file cannot be written, or None: without its name, since the heartbeat is public."""
    file = "the file of CTMS_PLUGIN_JSONL_PATH"
    try:
        if not path.parent.is_dir():
            return "the folder of CTMS_PLUGIN_JSONL_PATH does not exist"
        if path.is_dir():
            return "CTMS_PLUGIN_JSONL_PATH names a folder, not a file"
        targets = [one for one in (path, _lock_of(path)) if one.exists()]
        if not os.access(path.parent, os.W_OK | os.X_OK) or not all(
            os.access(one, os.R_OK | os.W_OK) for one in targets
        ):
            return f"{file} cannot be written: the user of the service needs write access to it and its folder"
    except OSError as error:
        return f"{file} cannot be written: {error.strerror}"
    return None


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


class Journal:
    """A file that lines are appended to, by any number of processes.

    Data that are reported as done are on disk. A crash leaves at most an incomplete line, which the next push removes,
    and possibly repeated lines.
    """

    def __init__(self, path: Path, max_bytes: int, every: str) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._period = PERIODS[every]

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Outcomes:
        """Append a line for each contact, all or none of them. Raises `OSError`."""
        lines = b"".join(map(_line, contacts))
        if lines:
            with self._locked():
                self._append(lines)
        return None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(_lock_of(self._path), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _append(self, lines: bytes) -> None:
        with _opened(self._path) as file:
            end = _repaired(file)
            aside = end > 0 and (end + len(lines) > self._max_bytes or self._is_of_another_period(file))
            if not aside:
                _write(file, end, lines)
        if aside:
            self._path.rename(self._free_name())
            with _opened(self._path) as file:
                _write(file, 0, lines)
        if aside or end == 0:
            self._sync_folder()

    def _is_of_another_period(self, file: int) -> bool:
        written = datetime.fromtimestamp(os.fstat(file).st_mtime, UTC)
        return written.strftime(self._period) != datetime.now(UTC).strftime(self._period)

    def _free_name(self) -> Path:
        while True:
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            name = self._path.with_name(f"{self._path.stem}-{moment}{self._path.suffix}")
            if not name.exists():
                return name

    def _sync_folder(self) -> None:
        with _opened(self._path.parent, os.O_RDONLY) as folder:
            os.fsync(folder)


@contextmanager
def _opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT | os.O_APPEND) -> Iterator[int]:
    descriptor = os.open(path, flags, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _repaired(file: int) -> int:
    """Truncate an incomplete last line; return the end of the file."""
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)
    return end


def _write(file: int, end: int, lines: bytes) -> None:
    try:
        written = 0
        while written < len(lines):  # once, unless the disk is almost full
            written += os.write(file, memoryview(lines)[written:])
        os.fsync(file)
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, end)
        raise


def _line(contact: ContactState) -> bytes:
    state = {"email_id": contact.email_id, "gone": True} if contact.document is None else contact.document
    return json.dumps(state, separators=(",", ":")).encode() + b"\n"
