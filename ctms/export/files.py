"""The files of an export: written under a temporary name, readable by their owner only, named when they are whole."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ctms.errors import ConflictError, OperatorError

MANIFEST = "manifest.json"
PARTIAL = ".partial"

_OURS = re.compile(r"(?:contacts-\d{5,}\.(?:ndjson|csv|parquet)(?:\.zst)?|manifest\.json)(?:\.partial)?")


@dataclass(frozen=True)
class WrittenFile:
    """A file of an export: its name, number of contacts, size, and hash."""

    file: str
    contacts: int
    bytes: int
    sha256: str


class HashedFile:
    """A writable file that hashes what is written to it, and counts its bytes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file
        self._hash = hashlib.sha256()
        self.bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of the data."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.bytes += view.nbytes
        rest = view
        while rest and self._file is not None:
            rest = rest[self._file.write(rest) :]
        return view.nbytes

    def flush(self) -> None:
        """Do nothing: nothing is buffered here."""

    def abandon(self) -> None:
        """Ignore what is written from now on. A compressor writes its end even when it is thrown away."""
        self._file = None

    def tell(self) -> int:
        """Return the number of written bytes."""
        return self.bytes

    @property
    def sha256(self) -> str:
        """The hash of what was written, in hexadecimal."""
        return self._hash.hexdigest()


def open_partial(path: Path) -> BinaryIO:
    """Open the temporary file of a new file, for its owner only. Raises `OperatorError` if that is not possible."""
    try:
        return os.fdopen(os.open(partial(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb", 0)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from error


def partial(path: Path) -> Path:
    """Return the path of the temporary file."""
    return path.with_name(path.name + PARTIAL)


def publish(file: BinaryIO, path: Path) -> None:
    """Close a temporary file when it is on the disk, and give it its name."""
    file.flush()
    os.fsync(file.fileno())
    file.close()
    partial(path).rename(path)


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: it has all of the text, or does not exist."""
    with open_partial(path) as file:
        file.write(text.encode())
        publish(file, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def prepare_directory(folder: Path, *, overwrite: bool) -> None:
    """Create the directory of an export, or empty it of an earlier one, whose manifest goes first.

    Raises `ConflictError` if it has files, unless these are of an export and may be overwritten.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = sorted(one.name for one in folder.iterdir())
    except OSError as error:
        raise OperatorError(f"{folder} cannot be used: {error.strerror}") from error
    foreign = next((name for name in found if not _OURS.fullmatch(name)), None)
    if foreign is not None:
        raise ConflictError(f"{folder} has files that belong to no export, such as {foreign}: name another directory")
    if MANIFEST in found and not overwrite:
        raise ConflictError(f"{folder} has an export: name another directory, or pass --overwrite")
    if found and not overwrite:
        raise ConflictError(
            f"{folder} has what is left of an export that did not end: name another directory, or pass --overwrite"
        )
    for name in sorted(found, key=lambda name: name != MANIFEST):
        (folder / name).unlink()


def prepare_file(path: Path, *, overwrite: bool) -> None:
    """Make way for a file and its manifest, which goes first. Raises `ConflictError` unless they may be overwritten."""
    for one in (manifest_of(path), path):
        if one.exists():
            if not overwrite or not one.is_file():
                raise ConflictError(f"{one} exists: name another file, or pass --overwrite")
            one.unlink()


def manifest_of(path: Path) -> Path:
    """Return the path of a single file's manifest."""
    return path.with_name(f"{path.name}.{MANIFEST}")


def remove(path: Path) -> None:
    """Remove a file, whole or temporary, if it exists."""
    for one in (path, partial(path)):
        one.unlink(missing_ok=True)
