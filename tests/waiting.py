"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

TIMEOUT_IN_SECONDS = 200
"""Far more than anything takes, even on a busy machine."""

T = TypeVar("T")


def timeout_of_requests(failure: str = "") -> float:
    """Return the timeout, in seconds, of requests to a stub server that fails so: short only if it never responds."""
    return 0.2 if failure == "slow" else TIMEOUT_IN_SECONDS


def until(look: Callable[[], T], good: Callable[[T], bool] = bool, *, pause: float = 0.2) -> T:
    """Look, with pauses of so many seconds, until the result is accepted or the timeout ends; return the last one."""
    give_up = time.monotonic() + TIMEOUT_IN_SECONDS
    while True:
        found = look()
        if good(found) or time.monotonic() > give_up:
            return found
        time.sleep(pause)


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition is true. Raises `AssertionError` after the timeout."""
    assert until(condition, pause=0.01), "the timeout has passed"
