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

    def call(
        self,
        lane: Lane,
        function: Callable[[], Any],
        timeout: float,
        late: Callable[[], None] = lambda: None,
    ) -> Any:
        """Return what the function returns. Raises what it raises, and `TimeoutError` after `timeout` seconds.

        When a call that was given up ends after all, `late` is called, in its thread, before the next one may begin.
        """
        answer: Future[Any] = Future()

        def work() -> None:
            result, raised = None, None
            try:
                result = function()
            except Exception as error:  # noqa: BLE001  whoever waits for the answer is told
                raised = error
            except BaseException as error:  # noqa: BLE001  would end the service, or its event loop
                raised = RuntimeError(type(error).__name__)
            with self._lock:
                given_up = self._running.get(lane) is answer
                if not given_up:
                    _answer(answer, result, raised)
            if given_up:
                try:
                    late()
                finally:
                    _answer(answer, result, raised)

        # Not of a pool: its threads would be waited for at the end of the process, hanging ones for ever.
        Thread(target=work, name=f"call {lane.lock}", daemon=True).start()
        try:
            return answer.result(timeout)
        except NotInTime:
            with self._lock:
                if not answer.done():
                    self._running[lane] = answer
                    raise TimeoutError(f"no answer within {timeout:g} s") from None
            return answer.result()  # it came in the last moment, or is this error


def _answer(answer: Future[Any], result: Any, raised: Exception | None) -> None:
    if raised is None:
        answer.set_result(result)
    else:
        answer.set_exception(raised)
