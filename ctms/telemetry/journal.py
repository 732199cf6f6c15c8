"""Answered requests on their way into the metrics and the log.

Counting and logging a request at once takes many times as long as in a loop: code and data that are used once a request
are in no cache any more. So a request is only written down, and its process tells of many together, ten times a second.
What a killed process had not told is told by the one that takes its slot, or by who answers the next scrape.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ctms.telemetry.requests import Finished
from ctms.telemetry.sheets import Sheet
from ctms.telemetry.slots import SHEETS, Slots

logger = logging.getLogger(__name__)

EVERY_SECONDS = 0.1
_PATIENCE_IN_SECONDS = 1

Observer = Callable[[Sequence[Finished]], None]


class Account(Protocol):
    """Takes answered requests, and tells observers of them."""

    def add(self, finished: Finished) -> None:
        """Take a request that has just been answered."""

    def settle(self) -> None:
        """Return when all that was taken so far has been told, by whichever process of the instance took it."""


class AtOnce:
    """Tells of a request at once: where metrics are kept in the memory of the only process."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def add(self, finished: Finished) -> None:
        """Take a request that has just been answered."""
        for observe in self._observers:
            observe((finished,))

    def settle(self) -> None:
        """Nothing ever waits."""


class Journal:
    """Tells of requests ten times a second, from a file of the process's slot. What was told may be told again, when a
    process is killed in the millisecond between that and noting it; nothing remains untold.

    `tick` is called as often, in a process that answers requests.
    """

    def __init__(self, files: Slots, *observers: Observer, tick: Callable[[], None] = lambda: None) -> None:
        self._files = files
        self._observers = observers
        self._tick = tick
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        """Have nothing: as at first, or in a fork, where sheets and thread are the parent's, and locks may be held."""
        # Requests write one sheet while the other is told.
        self._sheets: list[Sheet] = []
        self._writing, self._telling = threading.Lock(), threading.Lock()

    def add(self, finished: Finished) -> None:
        """Take a request that has just been answered."""
        if not self._sheets:
            self._begin()
        while True:
            with self._writing:
                if self._sheets[0].write(finished):
                    return
            self._tell()  # more requests in a tenth of a second than a sheet holds

    def settle(self) -> None:
        """Tell of all that waits: this process's, and what killed ones have left; and let the others tell of theirs."""
        if not self._sheets:
            self._begin()
        self._tell()
        with self._files.orphans() as left:
            for file in left:
                self._tell_of(Sheet(file))
        self._wait_for_others()

    def _wait_for_others(self) -> None:
        """Let the other processes tell of what waits there at this moment: a tenth of a second, if they live."""
        give_up = time.monotonic() + _PATIENCE_IN_SECONDS
        waiting = {file: since for file in self._files.sheets() if (since := Sheet.waits_since(file)) is not None}
        while waiting and time.monotonic() < give_up:
            time.sleep(EVERY_SECONDS / 10)
            waiting = {file: since for file, since in waiting.items() if Sheet.waits_since(file) == since}

    def _begin(self) -> None:
        """Begin in this process: with sheets of its own, and what its slot's last process has left in them."""
        with self._writing:
            if self._sheets:  # another thread was faster
                return
            slot = self._files.own()
            sheets = [Sheet(self._files.folder / f"{slot}.{number}.{SHEETS}") for number in range(2)]
            for sheet in sheets:
                self._tell_of(sheet)
            self._sheets = sheets
            threading.Thread(target=self._go_on, name="journal", daemon=True).start()
            atexit.register(self._tell)

    def _go_on(self) -> None:
        while True:
            time.sleep(EVERY_SECONDS)
            _safely(self._tick)
            self._tell()

    def _tell(self) -> None:
        with self._telling:
            with self._writing:
                self._sheets.reverse()
            if self._sheets:  # a fork that ends has none, unless it answered requests
                self._tell_of(self._sheets[1])

    def _tell_of(self, sheet: Sheet) -> None:
        if told := sheet.read():
            for observe in self._observers:
                _safely(observe, told)
        sheet.clear()


def _safely(call: Callable[..., None], *values: Any) -> None:
    """Call it; an error is logged, and nothing else suffers."""
    try:
        call(*values)
    except Exception:
        logger.exception("telemetry failed")


def open_journal(files: Slots | None, *observers: Observer, tick: Callable[[], None]) -> Account:
    """Return what takes the requests of this process: a `Journal` where the processes of an instance have a folder."""
    return AtOnce(*observers) if files is None else Journal(files, *observers, tick=tick)
