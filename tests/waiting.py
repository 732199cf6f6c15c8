"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TIMEOUT_IN_SECONDS = 120
"""Far more than anything takes, even on a busy machine."""


def timeout_of_requests(failure: str = "") -> float:
    """Return the timeout, in seconds, of requests to a stub server that fails so: short only if it never responds."""
    return 0.2 if failure == "slow" else TIMEOUT_IN_SECONDS


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition is true. Raises `AssertionError` after the timeout."""
    give_up = time.monotonic() + TIMEOUT_IN_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "the timeout has passed"
        time.sleep(0.01)
