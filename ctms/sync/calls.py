"""Calls of plugins with a timeout. No call starts in a lane while one that timed out still runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from threading import Lock
from typing import Any

from flask import has_app_context

from ctms.current import current_app
from ctms.outbox.lanes import Lane
from ctms.threads import start_in_thread


class Calls:
    """The calls of one process."""

    def __init__(self) -> None:
        self._timed_out: dict[Lane, Future[Any]] = {}
        self._lock = Lock()

    def is_stuck(self, lane: Lane) -> bool:
        """Return whether a timed-out call is still running: a newer state could be overtaken by its older one."""
        with self._lock:
            return lane in self._timed_out

    def call(
        self,
        lane: Lane,
        function: Callable[[], Any],
        timeout: float,
        late: Callable[[], None] = lambda: None,
    ) -> Any:
        """Return the function's result. Raises its exceptions, and `TimeoutError` after `timeout` seconds.

        The function runs in the context of the current app, and so with its database. When a call that timed out ends,
        `late` is called in its thread, before the next call may start.
        """
        app = current_app().app_context() if has_app_context() else nullcontext()

        def run() -> Any:
            try:
                with app:
                    return function()
            except Exception:
                raise
            except BaseException as error:  # noqa: BLE001  would end the service, or its event loop
                raise RuntimeError(type(error).__name__) from None

        def end(future: Future[Any]) -> None:
            with self._lock:
                timed_out = self._timed_out.get(lane) is future
            if timed_out:
                try:
                    late()
                finally:
                    with self._lock:
                        del self._timed_out[lane]

        future = start_in_thread(run, f"call {lane.lock}")
        future.add_done_callback(end)
        try:
            return future.result(timeout)
        except TimeoutError:
            with self._lock:
                if not future.done():
                    self._timed_out[lane] = future
                    raise TimeoutError(f"no answer within {timeout:g} s") from None
            return future.result()  # it ended at the last moment, or this is its own error
