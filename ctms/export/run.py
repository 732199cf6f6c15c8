"""Run an export: connections copy slices of one snapshot to the target, and the manifest completes it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from threading import Event, Lock
from typing import Any
from urllib.parse import urlencode

from ctms.current import current_app
from ctms.database.engine import database_url
from ctms.database.pool import Connection, connect_arguments
from ctms.database.replicas import find_replicas
from ctms.export.files import WrittenFile, write_whole
from ctms.export.formats import Format
from ctms.export.rendering import CopyStatement, Slice, make_slices
from ctms.export.snapshot import Snapshot
from ctms.export.targets import Sink, Target
from ctms.search.conditions import Condition
from ctms.settings import app_settings
from ctms.threads import start_in_thread

VERSION = 1
"""The version of the manifest's format."""

CONTACTS_PER_SLICE = 100_000
"""The database reads most pages of a table for each small slice, and sorts large ones on its disk."""
MIN_SLICES_PER_CONNECTION = 4
"""So that all connections end at about the same time."""

_LOOK_EVERY_SECONDS = 0.2
_GIVE_UP_AFTER_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of an export: its format, the condition that contacts must match (None: all), connections and time limit.

    `described` are the members of the manifest that describe what was asked for.
    """

    format: Format
    condition: Condition | None
    connections: int
    max_seconds: float
    described: Mapping[str, Any]


@dataclass(frozen=True)
class ExportResult:
    """The result of an export: its files, and its manifest, whether the target has one or not."""

    files: Sequence[WrittenFile]
    manifest: Mapping[str, Any]


def _ignore(_contacts: int, _estimate: int | None) -> None:
    """Do nothing."""


def run_export(
    options: ExportOptions, target: Target, on_progress: Callable[[int, int | None], None] = _ignore
) -> ExportResult:
    """Export the contacts of one snapshot to the target, and write the manifest.

    `on_progress` is called now and then with the number of contacts so far, and an estimate of all; it may raise to
    stop the export. If anything is raised, no file of the export is left. Raises `OperatorError` when the time is over.
    """
    with ExitStack() as cleanup:
        cleanup.push(lambda kind, _error, _traceback: target.discard() if kind else None)
        app = current_app()
        parameters = connect_arguments(app_settings())
        snapshot = Snapshot(database_url(app)(), parameters, options.max_seconds, find_replicas(app))
        cleanup.callback(snapshot.close)
        snapshot.take()
        _Run(snapshot, options, target).finish(on_progress)
        files = target.finish()
        manifest = _describe(snapshot, options, files)
        if target.manifest is not None:
            write_whole(target.manifest, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return ExportResult(files, manifest)


class _Run:
    """The copying of all slices by several threads, each with a connection."""

    def __init__(self, snapshot: Snapshot, options: ExportOptions, target: Target) -> None:
        self._snapshot = snapshot
        self._options = options
        self._target = target
        condition = options.condition
        values = condition.bind(snapshot.taken_at) if condition else ()
        self._statement: CopyStatement = options.format.statement(condition, values)
        number = math.ceil(snapshot.estimated_contacts / CONTACTS_PER_SLICE)
        number = max(options.connections * MIN_SLICES_PER_CONNECTION, number)
        self._slices = iter(make_slices(number))
        self._lock = Lock()
        self._stopping = Event()
        self._buffers: list[_Buffer] = []

    def finish(self, on_progress: Callable[[int, int | None], None]) -> None:
        """Copy everything; if that fails, stop all threads and raise the first error."""
        estimate = self._snapshot.estimated_contacts if self._options.condition is None else None
        threads: list[Future[None]] = []
        try:
            # All before the first one works: the snapshot cannot be joined any more when its transaction has ended.
            connections = [self._snapshot.begin() for _ in range(self._options.connections)]
            threads += [self._start(one, number) for number, one in enumerate(connections)]
            waiting: set[Future[None]] = set(threads)
            while waiting:
                done, waiting = wait(waiting, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
                self._snapshot.check_time()
                on_progress(sum(one.contacts for one in self._buffers), estimate)
        except BaseException as error:
            self._stopping.set()
            self._snapshot.cancel()
            wait(threads, timeout=_GIVE_UP_AFTER_SECONDS)
            if isinstance(error, Exception):
                self._snapshot.check_time()  # the server may have been the first to notice
            raise

    def _start(self, connection: Connection, number: int) -> Future[None]:
        return start_in_thread(lambda: self._copy(connection), f"export {number}")

    def _copy(self, connection: Connection) -> None:
        """Copy slices until none is left."""
        buffer = _Buffer(self._target.open_sink(), self._options.format.block)
        self._buffers.append(buffer)
        while (part := self._next_slice()) is not None:
            _copy_slice(connection, self._statement.build(part), self._statement.values, buffer)
        connection.execute("COMMIT")  # at once: nothing else needs the snapshot
        connection.close()
        buffer.close()

    def _next_slice(self) -> Slice | None:
        with self._lock:
            return None if self._stopping.is_set() else next(self._slices, None)


class _Buffer:
    """Rows that are written to the sink in blocks of about `size` bytes."""

    def __init__(self, sink: Sink, size: int) -> None:
        self._sink = sink
        self._size = size
        self._rows: list[bytes] = []
        self._bytes = 0
        self.contacts = 0

    def add(self, row: bytes) -> None:
        """Add the row of a contact."""
        self._rows.append(row)
        self._bytes += len(row)
        self.contacts += 1
        if self._bytes >= self._size:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._sink.close()

    def _flush(self) -> None:
        if self._rows:
            self._sink.write(self._rows)
        self._rows, self._bytes = [], 0


def _copy_slice(connection: Connection, sql: str, values: Sequence[Any], buffer: _Buffer) -> None:
    before = buffer.contacts
    with connection.cursor() as cursor:
        with cursor.copy(sql, values or None) as copy:
            for row in copy:  # the server sends each row in a message of its own
                buffer.add(bytes(row))
        if cursor.rowcount != buffer.contacts - before:
            raise RuntimeError("the database has copied another number of contacts than it has sent")


def _describe(snapshot: Snapshot, options: ExportOptions, files: Sequence[WrittenFile]) -> dict[str, Any]:
    """Return the manifest."""
    start = snapshot.follow_from.isoformat(timespec="microseconds")
    return {
        "manifest_version": VERSION,
        "ctms_version": version("ctms"),
        "schema_version": snapshot.revision,
        "snapshot_at": snapshot.taken_at.isoformat(timespec="microseconds"),
        **options.described,
        "contacts": sum(one.contacts for one in files),
        "updates": {"start": start, "path": "/updates?" + urlencode({"deleted": "true", "start": start})},
        "parts": [asdict(one) for one in files],
    }
