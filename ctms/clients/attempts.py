"""A limit on failed attempts at a token, per client id and address, in each process."""

from __future__ import annotations

import math
import time

from flask import Flask
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from ctms.current import extension
from ctms.errors import TooManyRequests
from ctms.settings import Settings


class Attempts:
    """Counts failures; who has failed too often waits until the oldest is a minute old."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, client_id: str, address: str) -> None:
        """Raise `TooManyRequests` when there were too many failures."""
        if not self._limiter.test(self._limit, client_id, address):
            reset = self._limiter.get_window_stats(self._limit, client_id, address).reset_time
            wait = max(1, math.ceil(reset - time.time()))
            raise TooManyRequests("Too many failed attempts", headers={"Retry-After": str(wait)})

    def failed(self, client_id: str, address: str) -> None:
        """Count a failure."""
        self._limiter.hit(self._limit, client_id, address)


def init_attempts(app: Flask, settings: Settings) -> None:
    """Give the app its counter."""
    app.extensions["ctms.attempts"] = Attempts(settings.token_failures_per_minute)


def attempts() -> Attempts:
    """The `Attempts` of the current app."""
    found: Attempts = extension("ctms.attempts")
    return found
