"""The target of an export: a directory of parts, a single file, or a stream. Several connections write to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Protocol

from ctms.export.files import (
    MANIFEST,
    HashedFile,
    WrittenFile,
    manifest_of,
    open_partial,
    prepare_directory,
    prepare_file,
    publish,
    remove,
)
from ctms.export.formats import Format


class Sink(Protocol):
    """The part of a target that one connection writes to."""

    def write(self, rows: Sequence[bytes]) -> None:
        """Write the rows of some contacts, as the database sends them."""

    def close(self) -> None:
        """End the writing of this connection."""


class Target(Protocol):
    """The target of an export, and the path of its manifest if it has one."""

    @property
    def manifest(self) -> Path | None:
        """The path of the manifest."""

    def open_sink(self) -> Sink:
        """Return the sink of one connection."""

    def finish(self) -> list[WrittenFile]:
        """Complete the target when all sinks are closed; return its files by name."""

    def discard(self) -> None:
        """Remove everything that was written."""


class _Writing:
    """The writing of contacts in a format, in blocks that the format has encoded."""

    def __init__(self, file: BinaryIO, format_: Format) -> None:
        self.file = file
        self._hashed = HashedFile(file)
        self._writer = format_.open(self._hashed)
        self.contacts = 0

    def write(self, block: object, contacts: int) -> None:
        self._writer.write(block)
        self.contacts += contacts

    def close(self, name: str) -> WrittenFile:
        """Write the end; the file stays open."""
        self._writer.close()
        return WrittenFile(name, self.contacts, self._hashed.bytes, self._hashed.sha256)

    def abandon(self) -> None:
        """End the writing in the middle."""
        self._hashed.abandon()


class PartsTarget:
    """A directory of parts: each has `part_size` contacts, except the last one of each connection.

    Raises `ConflictError` if the directory has files.
    """

    def __init__(self, folder: Path, format_: Format, part_size: int, *, overwrite: bool = False) -> None:
        prepare_directory(folder, overwrite=overwrite)
        self.manifest = folder / MANIFEST
        self.format = format_
        self.part_size = part_size
        self._folder = folder
        self._parts: list[tuple[Path, _Writing]] = []
        self._written: list[WrittenFile] = []
        self._lock = Lock()

    def open_sink(self) -> Sink:
        """Return a sink with parts of its own."""
        return _PartsSink(self)

    def add_part(self) -> tuple[Path, _Writing]:
        """Begin a new part."""
        with self._lock:
            path = self._folder / f"contacts-{len(self._parts) + 1:05}{self.format.suffix}"
            part = _Writing(open_partial(path), self.format)
            self._parts.append((path, part))
        return path, part

    def complete(self, path: Path, part: _Writing) -> None:
        """Complete a part."""
        written = part.close(path.name)
        publish(part.file, path)
        with self._lock:
            self._written.append(written)

    def finish(self) -> list[WrittenFile]:
        """Return the parts by name: at least one, so that readers find the columns."""
        if not self._written:
            self.complete(*self.add_part())
        return sorted(self._written, key=lambda one: one.file)

    def discard(self) -> None:
        """Remove all parts and the manifest."""
        for path, part in self._parts:
            part.abandon()
            part.file.close()
            remove(path)
        remove(self.manifest)


class _PartsSink:
    def __init__(self, target: PartsTarget) -> None:
        self._target = target
        self._open: tuple[Path, _Writing] | None = None

    def write(self, rows: Sequence[bytes]) -> None:
        while rows:
            _, part = self._open = self._open or self._target.add_part()
            now = rows[: self._target.part_size - part.contacts]
            part.write(self._target.format.encode(now), len(now))
            rows = rows[len(now) :]
            if part.contacts == self._target.part_size:
                self.close()

    def close(self) -> None:
        if self._open is not None:
            self._target.complete(*self._open)
            self._open = None


class _SharedSink:
    """A sink for all connections: blocks are encoded at the same time, and written one after the other."""

    def __init__(self, writing: _Writing, format_: Format) -> None:
        self._writing = writing
        self._format = format_
        self._lock = Lock()
        self._error: Exception | None = None

    def write(self, rows: Sequence[bytes]) -> None:
        block = self._format.encode(rows)
        with self._lock:
            if self._error is not None:
                raise self._error  # what the writer would say after it is no cause
            try:
                self._writing.write(block, len(rows))
            except Exception as error:
                self._error = error
                raise

    def close(self) -> None:
        """Do nothing: other connections may still write."""


class FileTarget:
    """A single file, with its manifest beside it. Raises `ConflictError` if one of them exists."""

    def __init__(self, path: Path, format_: Format, *, overwrite: bool = False) -> None:
        prepare_file(path, overwrite=overwrite)
        self.manifest = manifest_of(path)
        self._path = path
        self._writing = _Writing(open_partial(path), format_)
        self._sink = _SharedSink(self._writing, format_)

    def open_sink(self) -> Sink:
        """Return the sink of all connections."""
        return self._sink

    def finish(self) -> list[WrittenFile]:
        """Complete the file."""
        written = self._writing.close(self._path.name)
        publish(self._writing.file, self._path)
        return [written]

    def discard(self) -> None:
        """Remove the file and its manifest."""
        self._writing.abandon()
        self._writing.file.close()
        remove(self._path)
        remove(self.manifest)


class StreamTarget:
    """A stream, such as standard output. It has no manifest."""

    manifest = None

    def __init__(self, stream: BinaryIO, format_: Format) -> None:
        self._writing = _Writing(stream, format_)
        self._sink = _SharedSink(self._writing, format_)

    def open_sink(self) -> Sink:
        """Return the sink of all connections."""
        return self._sink

    def finish(self) -> list[WrittenFile]:
        """Flush the stream."""
        written = self._writing.close("-")
        self._writing.file.flush()
        return [written]

    def discard(self) -> None:
        """Write nothing more: what was written is gone."""
        self._writing.abandon()
