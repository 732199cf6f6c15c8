"""Threads for functions that may hang, such as those of plugins."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def start_in_thread(function: Callable[[], T], name: str) -> Future[T]:
    """Start the function in a thread with this name; return the future of its result or exception.

    The thread does not belong to a pool: at exit the process would wait for pooled threads, even hanging ones.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  raised where the result is read
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return future
