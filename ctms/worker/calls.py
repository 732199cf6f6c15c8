"""Calling plugins: each call has a time-out, and none begins in a lane while one that was given up still runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from threading import Lock, Thread
from typing import Any

from ctms.outbox.lanes import Lane


class Calls:
    """The calls of one process."""

    def __init__(self) -> None:
        self._running: dict[Lane, Future[Any]] = {}
        self._lock = Lock()

    def is_stuck(self, lane: Lane) -> bool:
        """True while a call that was given up has not ended: beginning another could bring an old state after a new."""
        with self._lock:
            running = self._running.get(lane)
            if running is not None and running.done():
                del self._running[lane]
            return lane in self._running

    def call(self, lane: Lane, function: Callable[[], Any], timeout: float) -> Any:
        """Return what the function returns. Raises what it raises, and `TimeoutError` after `timeout` seconds."""
        answer: Future[Any] = Future()

        def work() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:  # noqa: BLE001  whoever waits for the answer is told
                answer.set_exception(error)

        # Not of a pool: its threads would be waited for at the end of the process, hanging ones for ever.
        Thread(target=work, name=f"call {lane.lock}", daemon=True).start()
        try:
            return answer.result(timeout)
        except NotInTime:
            if answer.done():  # it raised this itself
                raise
            with self._lock:
                self._running[lane] = answer
            raise TimeoutError(f"no answer within {timeout:g} s") from None
