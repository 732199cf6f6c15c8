"""Recorders of answered requests, which pass the records on to the metrics and the log.

Counting and logging one request at a time takes many times as long as in a loop: code and data that are used once per
request have left the CPU caches. So `RequestBuffer` keeps records in memory and flushes many together, ten times a
second.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ctms.telemetry.requests import RequestRecord
from ctms.telemetry.slots import Slots

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_SECONDS = 0.1
FLUSH_TIMEOUT_SECONDS = 1
MAX_BUFFERED = 5000
"""Number of records at which a request flushes the buffer itself, so that a slow log cannot fill the memory."""

Observer = Callable[[Sequence[RequestRecord]], None]


class RequestRecorder(Protocol):
    """Takes records of answered requests and passes them to observers."""

    def add(self, record: RequestRecord) -> None:
        """Add the record of a request that has just been answered."""

    def flush(self) -> None:
        """Pass on all records added so far, in all processes of the instance."""


class DirectRecorder:
    """Passes each record on at once, for a single process that keeps its metrics in memory."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def add(self, record: RequestRecord) -> None:
        """Pass the record to the observers."""
        for observe in self._observers:
            observe((record,))

    def flush(self) -> None:
        """Do nothing: no record waits."""


class RequestBuffer:
    """Buffers records in memory, and flushes them every `FLUSH_INTERVAL_SECONDS` and at the end of the process.

    A killed process loses the records that it has not flushed. `sample` is called before each flush of the thread.
    """

    def __init__(self, slots: Slots, *observers: Observer, sample: Callable[[], None] = lambda: None) -> None:
        self._slots = slots
        self._observers = observers
        self._sample = sample
        self._reset()
        os.register_at_fork(after_in_child=self._reset)
        atexit.register(self._drain)

    def _reset(self) -> None:
        """Start empty, also in a fork: the records and the thread are the parent's, and locks may be held."""
        self._records: deque[RequestRecord] = deque()
        self._is_started = False
        self._starting, self._draining = threading.Lock(), threading.Lock()

    def add(self, record: RequestRecord) -> None:
        """Add a record to the buffer."""
        if not self._is_started:
            self._start()
        self._records.append(record)
        if len(self._records) >= MAX_BUFFERED:
            self._drain()

    def flush(self) -> None:
        """Flush this buffer, and wait for up to `FLUSH_TIMEOUT_SECONDS` until other processes have flushed theirs."""
        now = time.time_ns()
        self._drain()
        self._slots.wait_for_flush(now, FLUSH_TIMEOUT_SECONDS)

    def _start(self) -> None:
        with self._starting:
            if not self._is_started:
                self._slots.mark_flushed(time.time_ns())
                threading.Thread(target=self._run, name="telemetry flush", daemon=True).start()
                self._is_started = True

    def _run(self) -> None:
        while True:
            time.sleep(FLUSH_INTERVAL_SECONDS)
            started = time.time_ns()
            _call_safely(self._sample)
            self._drain()
            self._slots.mark_flushed(started)

    def _drain(self) -> None:
        with self._draining:
            records = [self._records.popleft() for _ in range(len(self._records))]
            if records:
                for observe in self._observers:
                    _call_safely(observe, records)


def _call_safely(call: Callable[..., None], *values: Any) -> None:
    """Call a function and log its error, so that neither the request nor other observers fail."""
    try:
        call(*values)
    except Exception:
        logger.exception("telemetry failed")


def create_recorder(slots: Slots | None, *observers: Observer, sample: Callable[[], None]) -> RequestRecorder:
    """Return the recorder of this process: a `RequestBuffer` where several processes share a metrics directory."""
    return DirectRecorder(*observers) if slots is None else RequestBuffer(slots, *observers, sample=sample)
