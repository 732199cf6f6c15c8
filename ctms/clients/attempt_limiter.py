"""A rate limit on failed token requests, by client id and network address, in each process."""

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


class AttemptLimiter:
    """A moving-window rate limiter: a client over the limit waits until its oldest failure is a minute old."""

    def __init__(self, per_minute: int) -> None:
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def check(self, client_id: str, address: str) -> None:
        """Raise `TooManyRequests` when the client has too many failures."""
        if not self._limiter.test(self._limit, client_id, address):
            reset = self._limiter.get_window_stats(self._limit, client_id, address).reset_time
            wait = max(1, math.ceil(reset - time.time()))
            raise TooManyRequests("Too many failed attempts", headers={"Retry-After": str(wait)})

    def record_failure(self, client_id: str, address: str) -> None:
        """Count a failure."""
        self._limiter.hit(self._limit, client_id, address)


def init_attempt_limiter(app: Flask, settings: Settings) -> None:
    """Register the limiter with the app."""
    app.extensions["ctms.attempt_limiter"] = AttemptLimiter(settings.token_failures_per_minute)


def attempt_limiter() -> AttemptLimiter:
    """Return the limiter of the current app."""
    found: AttemptLimiter = extension("ctms.attempt_limiter")
    return found
