"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

TIMEOUT_IN_SECONDS = 120
"""Far more than anything takes, even on a busy machine."""


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition is true. Raises `AssertionError` after the timeout."""
    give_up = time.monotonic() + TIMEOUT_IN_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "the timeout has passed"
        time.sleep(0.01)
