"""Rate limits of API clients: a token bucket for each, in the database, from which processes lease tokens in chunks.

The query that authorizes a request also returns the client's limit. A process that knows of a limit spends the tokens
that it has leased, without a query, and leases the next ones when they are used up. Each process holds at most one
chunk. So all processes together never admit more than the burst, the rate multiplied by the time, and what they hold.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psycopg
from flask import Flask
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.current import extension
from ctms.database.pool import reading
from ctms.errors import TooManyRequests, Unavailable

PERIODS = {"s": 1, "m": 60, "h": 3600}
"""The units of a rate, in seconds."""

MAX_DENIED_SECONDS = 1.0
"""Limit on how long a process refuses requests without asking the database again."""

CHUNK_SECONDS = 0.1
"""Time in which a chunk of tokens is refilled."""

MAX_CHUNK_OF_BURST = 0.25
"""Largest part of a burst in one chunk."""

_POLICY = "default"

# `INSERT` creates the bucket, which a crash of the server empties: the table is not logged. The row lock orders the
# processes; the time is read after it was acquired. If the server's clock is set back, the bucket is refilled from then
# on. The limit is returned because a refused request learns of a new one only here.
_LEASE = """
    INSERT INTO rate_limit_buckets AS b (client_id, tokens, granted, refilled_at)
    SELECT client_id, rate_limit_burst - least(%(wanted)s, rate_limit_burst), least(%(wanted)s, rate_limit_burst),
        clock_timestamp()
    FROM api_client WHERE client_id = %(client_id)s AND rate_limit_requests IS NOT NULL
    ON CONFLICT (client_id) DO UPDATE SET (tokens, granted, refilled_at) = (
        SELECT refilled.tokens - least(%(wanted)s, floor(refilled.tokens)), least(%(wanted)s, floor(refilled.tokens)),
            refilled.at
        FROM (
            SELECT clock.at, least(c.rate_limit_burst, b.tokens + c.rate_limit_requests
                * greatest(0, extract(epoch FROM clock.at - b.refilled_at)::float8) / c.rate_limit_seconds) AS tokens
            FROM api_client c, (SELECT clock_timestamp() AS at OFFSET 0) clock
            WHERE c.client_id = b.client_id OFFSET 0) refilled)
    RETURNING granted, tokens, (
        SELECT ARRAY[c.rate_limit_requests, c.rate_limit_seconds, c.rate_limit_burst]
        FROM api_client c WHERE c.client_id = b.client_id)"""


class RateLimit(NamedTuple):
    """A limit: `requests` in each period of `seconds`, and at most `burst` at once."""

    requests: int
    seconds: int
    burst: int

    @property
    def rate(self) -> str:
        """The rate as operators write it: `100/s`."""
        unit = next(unit for unit, seconds in PERIODS.items() if seconds == self.seconds)
        return f"{self.requests}/{unit}"

    @property
    def per_second(self) -> float:
        """The number of requests per second."""
        return self.requests / self.seconds

    @property
    def chunk(self) -> int:
        """The largest number of tokens that a process holds."""
        return max(1, int(min(self.per_second * CHUNK_SECONDS, self.burst * MAX_CHUNK_OF_BURST)))


def make_rate_limit(columns: Sequence[int | None]) -> RateLimit | None:
    """Return the limit in the columns of a client, None if it has none."""
    requests, seconds, burst = columns
    return None if requests is None or seconds is None or burst is None else RateLimit(requests, seconds, burst)


@dataclass(frozen=True)
class Quota:
    """The quota of a client after a request: tokens that remain, and the seconds until the next one if none does."""

    limit: RateLimit
    remaining: int
    wait_seconds: int

    def headers(self) -> dict[str, str]:
        """Return the fields of draft-ietf-httpapi-ratelimit-headers-10."""
        window = math.ceil(self.limit.burst / self.limit.per_second)
        found = {"RateLimit-Policy": f'"{_POLICY}";q={self.limit.burst};w={window}'}
        if self.remaining:
            return {**found, "RateLimit": f'"{_POLICY}";r={self.remaining}'}
        return {**found, "RateLimit": f'"{_POLICY}";r=0;t={self.wait_seconds}'}


class _Bucket:
    """The tokens of a client in this process: negative while requests were admitted before its limit was known."""

    def __init__(self, client_id: str, limit: RateLimit) -> None:
        self.limit = limit
        self._client_id = client_id
        self._lock = threading.Lock()
        self._tokens = 0
        self._shared = 0.0
        self._leased_at = self._denied_until = self._failed_at = 0.0

    def add_debt(self) -> None:
        """Count a request that was admitted without a token."""
        with self._lock:
            self._tokens -= 1

    def take(self) -> Quota | None:
        """Spend a token; None if the client no longer has a limit.

        Raises `TooManyRequests`, and the errors of the database if tokens cannot be leased.
        """
        arrived = time.monotonic()
        with self._lock:
            if self._tokens < 1 and arrived >= self._denied_until and not self._lease(arrived):
                return None
            if self._tokens < 1:
                quota = Quota(self.limit, 0, self._wait_seconds())
                headers = {"Retry-After": str(quota.wait_seconds), **quota.headers()}
                problem = f"Too many requests: the limit of the client is {self.limit.rate}"
                raise TooManyRequests(problem, headers=headers)
            self._tokens -= 1
            remaining = self._tokens + int(self._shared)
            return Quota(self.limit, remaining, 0 if remaining else self._wait_seconds())

    def _lease(self, arrived: float) -> bool:
        """Lease tokens up to a chunk. Returns False if the client has no limit."""
        if arrived < self._failed_at:  # a lease failed while this request waited for its result
            raise Unavailable("the database is not available")
        wanted = self.limit.chunk - self._tokens
        try:
            with reading() as connection:
                values = {"client_id": self._client_id, "wanted": wanted}
                row = connection.execute(_LEASE, values).fetchone()
        except (psycopg.Error, PoolTimeout):
            self._failed_at = time.monotonic()
            raise
        if row is None:
            return False
        granted, self._shared, columns = row
        self.limit = make_rate_limit(columns) or self.limit
        self._tokens += granted
        self._leased_at = time.monotonic()
        if self._tokens < 1:
            # The next chunk is complete then, also if several processes refuse the client.
            pause = max(self._missing() / self.limit.per_second, self.limit.chunk / self.limit.per_second)
            self._denied_until = self._leased_at + min(pause, MAX_DENIED_SECONDS)
        return True

    def _missing(self) -> float:
        """Return the number of tokens that must be refilled before the next request is admitted."""
        return max(0.0, 1 - self._tokens - self._shared)

    def _wait_seconds(self) -> int:
        left = self._leased_at + self._missing() / self.limit.per_second - time.monotonic()
        return max(1, math.ceil(left))


class RateLimiter:
    """The limits of the clients that have called this process."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, client_id: str) -> Quota | None:
        """Spend a token of a client that is known to have a limit, else return None.

        Raises `TooManyRequests`, and the errors of the database if tokens cannot be leased.
        """
        bucket = self._buckets.get(client_id)
        if bucket is None:
            return None
        quota = bucket.take()
        if quota is None:
            self._buckets.pop(client_id, None)
        return quota

    def update(self, client_id: str, limit: RateLimit | None, has_token: bool) -> None:
        """Store the limit of a client after a request, which may have been admitted without a token."""
        bucket = self._buckets.get(client_id)
        if limit is None:
            if bucket is not None:
                self._buckets.pop(client_id, None)
            return
        if bucket is None or bucket.limit != limit:
            with self._lock:
                bucket = self._buckets.get(client_id)
                if bucket is None or bucket.limit != limit:
                    bucket = self._buckets[client_id] = _Bucket(client_id, limit)
        if not has_token:
            bucket.add_debt()


def init_rate_limiter(app: Flask) -> None:
    """Register the limiter with the app."""
    app.extensions["ctms.rate_limiter"] = RateLimiter()


def rate_limiter() -> RateLimiter:
    """Return the limiter of the current app."""
    found: RateLimiter = extension("ctms.rate_limiter")
    return found
