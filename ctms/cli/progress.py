"""Progress of a command, on standard error: a bar on a terminal, else an occasional line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from ctms.cli.output import say
from ctms.errors import UnfinishedError

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

SECONDS_BETWEEN_LINES = 10


@contextmanager
def counting(what: str) -> Iterator[Callable[[Iterable[int]], int]]:
    """Yield a function that adds up batches of `what`, and occasionally reports the sum on standard error.

    Raises `UnfinishedError` if the command is interrupted in the block.
    """
    total = 0

    def add_up(batches: Iterable[int]) -> int:
        nonlocal total
        said = time.monotonic()
        for number in batches:
            total += number
            if time.monotonic() - said > SECONDS_BETWEEN_LINES / 2:
                said = time.monotonic()
                say(f"{what}: {total:,}")
        return total

    try:
        yield add_up
    except KeyboardInterrupt:
        raise UnfinishedError(f"stopped: {what}: {total:,}; run it again for the rest") from None


class Progress:
    """Shows how many of `total` are done, the rate, and the remaining time; without `total` only the first.

    Enter it where the work begins, and leave it where the work ends.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._what = what
        self._total = total
        self._started = self._last_line = time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty():
            from rich.console import Console  # noqa: PLC0415  without a terminal, there is no bar
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(what, total=total, text="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def at(self, done: int, total: int | None = None) -> None:
        """Show that this many are done; `total` replaces the previous one."""
        now = time.monotonic()
        if total is not None:
            self._total = total
        if self._bar:
            self._bar.update(self._task, completed=done, total=self._total, text=self._speed(done, now))
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            of = f" of {self._total:,}" if self._total is not None else ""
            say(f"{self._what}: {done:,}{of}, {self._speed(done, now)}")

    def _speed(self, done: int, now: float) -> str:
        rate = done / max(now - self._started, 0.001)
        if self._total is None or not rate or done > self._total:
            return f"{rate:,.0f}/s"
        left = timedelta(seconds=round((self._total - done) / rate))
        return f"{rate:,.0f}/s, {left} left"
