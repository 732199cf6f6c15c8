"""Run an import: the rows of a file, in chunks, each of which is a transaction, written by several processes.

Committed chunks stay committed, whatever stops the import. Rows of one contact go to the same process, in their order,
so the result does not depend on the number of processes.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from itertools import chain, islice
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from queue import SimpleQueue
from threading import Thread
from typing import Any

import psycopg

from ctms.addresses import comparison_key
from ctms.current import current_app
from ctms.database import pool
from ctms.database.engine import database_url
from ctms.database.operator_errors import database_problem
from ctms.database.pool import Connection, connect_arguments, connect_with_retry
from ctms.errors import OperatorError
from ctms.imports.mapping import Row, RowError
from ctms.imports.rows import ImportRules, RowOutcome, Rows, bad_row, import_rows
from ctms.settings import app_settings

logger = logging.getLogger(__name__)

MAX_WAITING = 2
"""Number of chunks that a process has at most: one that it works on, and the next."""

GARBAGE_THRESHOLD = 100_000
"""Number of new objects that let a process search for cycles: most objects of a chunk live until its end."""

_LOOK_EVERY_SECONDS = 1.0

Found = tuple[int, Row | RowError]
Report = Callable[[Sequence[RowOutcome]], None]


def run_import(
    found: Iterable[Found],
    rules: ImportRules,
    report: Report,
    *,
    chunk: int,
    processes: int,
    defer_signals: Callable[[], AbstractContextManager[object]],
) -> None:
    """Import the rows; call `report` with the outcomes of each chunk after its commit.

    A file with one chunk, or one process, is imported in this process. `defer_signals()` delays signals that stop the
    import while a chunk and its report are due. Raises `psycopg.Error` or `OperatorError` when the database fails; what
    was reported is done.
    """
    rows = iter(found)
    first = list(islice(rows, chunk))
    if processes == 1 or len(first) < chunk:
        with pool.acquire() as connection:
            while first:
                with defer_signals():
                    report(_import_all(connection, first, rules))
                first = list(islice(rows, chunk))
        return
    with closing(_Processes(rules, report, processes, chunk, defer_signals)) as running:
        for number, row in chain(first, rows):
            running.add(number, row)
        running.finish()


def _import_all(connection: Connection, found: Iterable[Found], rules: ImportRules) -> list[RowOutcome]:
    bad = [bad_row(number, row) for number, row in found if isinstance(row, RowError)]
    good = [(number, row) for number, row in found if not isinstance(row, RowError)]
    return sorted([*bad, *import_rows(connection, good, rules)])


class _Processes:
    """The processes of an import, and the rows that wait for them."""

    def __init__(
        self,
        rules: ImportRules,
        report: Report,
        number: int,
        chunk: int,
        defer_signals: Callable[[], AbstractContextManager[object]],
    ) -> None:
        self._rules = rules
        self._report = report
        self._chunk = chunk
        self._defer_signals = defer_signals
        self._bad: list[RowOutcome] = []
        url, parameters = database_url(current_app())(), connect_arguments(app_settings())
        self._workers: list[_Worker] = []
        for _ in range(number):
            self._workers.append(_Worker(rules, url, parameters))

    def add(self, number: int, row: Row | RowError) -> None:
        """Add a row; send the rows of its process if they are a chunk."""
        if isinstance(row, RowError):
            self._bad.append(bad_row(number, row))
            if len(self._bad) == self._chunk:
                self._report_bad()
            return
        key = self._rules.map.key(row)
        place = zlib.crc32(comparison_key(key).encode(errors="replace")) if key else 0
        worker = self._workers[place % len(self._workers)]
        worker.rows.append((number, row))
        if len(worker.rows) == self._chunk:
            self._send(worker)

    def finish(self) -> None:
        """Send what is left, and wait for all outcomes."""
        self._report_bad()
        for worker in self._workers:
            if worker.rows:
                self._send(worker)
        while any(worker.waiting for worker in self._workers):
            self._receive()

    def close(self) -> None:
        """Report the chunks that were sent, and end the processes. Rows that were not sent are dropped."""
        try:
            with self._defer_signals():
                while any(worker.waiting for worker in self._workers):
                    self._receive()
        finally:
            for worker in self._workers:
                worker.close()

    def _send(self, worker: _Worker) -> None:
        while worker.waiting >= MAX_WAITING:
            self._receive()
        with self._defer_signals():
            worker.send()

    def _receive(self) -> None:
        """Wait until a process has an outcome, and report it."""
        ready = wait([worker.pipe for worker in self._workers if worker.waiting], _LOOK_EVERY_SECONDS)
        for worker in self._workers:
            if worker.pipe in ready:
                with self._defer_signals():
                    self._report(worker.receive())

    def _report_bad(self) -> None:
        bad, self._bad = self._bad, []
        if bad:
            self._report(bad)


class _Worker:
    """A process that imports chunks of rows, seen from the process that reads them."""

    def __init__(self, rules: ImportRules, url: str, parameters: dict[str, Any]) -> None:
        # A fork has the app with its plugins, which would take a second to create. It uses a connection of its own.
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.rows: list[tuple[int, Row]] = []
        self.waiting = 0
        self._process = context.Process(
            target=_work, args=((self.pipe, other), rules, url, parameters, os.getpid()), daemon=True
        )
        self._process.start()
        other.close()

    def send(self) -> None:
        """Send the rows to the process."""
        rows, self.rows = self.rows, []
        try:
            self.pipe.send(rows)
        except OSError:
            self._has_ended()
        self.waiting += 1

    def receive(self) -> list[RowOutcome]:
        """Return the outcomes of a chunk. Raises `OperatorError` if it failed."""
        try:
            found = self.pipe.recv()
        except (EOFError, OSError):
            self._has_ended()
        self.waiting -= 1
        if isinstance(found, str):
            self.waiting = 0
            raise OperatorError(found)
        outcomes: list[RowOutcome] = found
        return outcomes

    def close(self) -> None:
        """End the process, which waits for rows."""
        with suppress(OSError):
            self.pipe.send(None)
        self._process.join()
        self.pipe.close()

    def _has_ended(self) -> None:
        self.waiting = 0
        raise OperatorError("a process of the import has ended: it was killed, or has reported an error above")


def _work(ends: tuple[Pipe, Pipe], rules: ImportRules, url: str, parameters: dict[str, Any], parent: int) -> None:
    """Import chunks until the pipe is closed, or the parent has ended."""
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)  # the parent stops the import
    theirs, pipe = ends
    theirs.close()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    chunks: SimpleQueue[Rows | None] = SimpleQueue()
    # In a thread, so that the parent is never blocked by sending while this process is blocked by sending outcomes.
    Thread(target=_receive, args=(pipe, parent, chunks), daemon=True).start()
    try:
        with connect_with_retry(url, **parameters, autocommit=True) as connection:
            while (rows := chunks.get()) is not None:
                pipe.send(import_rows(connection, rows, rules))
    except BrokenPipeError:
        return
    except psycopg.Error as error:
        pipe.send(database_problem(error) or f"the database failed ({type(error).__name__})")
    except Exception as error:  # its message may repeat values of rows
        logger.debug("the import failed", exc_info=True)
        pipe.send(f"the import failed ({type(error).__name__}): see the log at the level DEBUG")


def _receive(pipe: Pipe, parent: int, chunks: SimpleQueue[Rows | None]) -> None:
    """Put chunks into the queue, and None at the end, or when the parent has ended.

    The pipe is not closed then: other processes have copies of its other end.
    """
    rows: Rows | None = ()
    while rows is not None:
        try:
            while not (ready := pipe.poll(_LOOK_EVERY_SECONDS)) and os.getppid() == parent:
                pass
            rows = pipe.recv() if ready else None
        except (EOFError, OSError):
            rows = None
        chunks.put(rows)
