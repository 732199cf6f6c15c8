"""The circuit breaker of a receiver, shared by all workers.

While it is open the receiver is not called. It opens after too many consecutive failures, for a cool-down that grows;
the other system can request one, and an operator can pause the receiver. After the cool-down the breaker is half open:
one contact is tried, the one with the fewest attempts. If that succeeds, the receiver gets full batches again. The
state is stored in the table `receivers`.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from ctms.database.pool import Connection
from ctms.outbox.lanes import Lane
from ctms.sync import receiver_states

_MIN_COOL_DOWN_SECONDS = 2.0
_MAX_COOL_DOWN_SECONDS = 300.0
_SUCCESS_INTERVAL_SECONDS = 5.0
_MAX_TURN_WAIT_SECONDS = 2.0

_STATE = """
    SELECT paused_at IS NOT NULL OR coalesce(open_until > clock_timestamp(), false), failures
    FROM receivers WHERE kind = %s AND name = %s"""

_RECORD_FAILURE = """
    INSERT INTO receivers AS r (kind, name, failures, last_error, last_error_at)
    VALUES (%s, %s, 1, %s, clock_timestamp())
    ON CONFLICT (kind, name) DO UPDATE SET
        failures = r.failures + CASE WHEN r.open_until > clock_timestamp() THEN 0 ELSE 1 END,
        last_error = excluded.last_error, last_error_at = excluded.last_error_at
    RETURNING failures, coalesce(open_until > clock_timestamp(), false)"""

_OPEN = """
    INSERT INTO receivers AS r (kind, name, failures, open_until, last_error, last_error_at)
    SELECT %(kind)s, %(name)s, 0, now + make_interval(secs => %(cool_down)s), %(why)s::text,
        CASE WHEN %(why)s::text IS NOT NULL THEN now END
    FROM clock_timestamp() AS now
    ON CONFLICT (kind, name) DO UPDATE SET
        open_until = greatest(r.open_until, excluded.open_until),
        last_error = coalesce(excluded.last_error, r.last_error),
        last_error_at = coalesce(excluded.last_error_at, r.last_error_at)"""

_RECORD_SUCCESS = """
    INSERT INTO receivers AS r (kind, name, failures, last_success_at) VALUES (%s, %s, 0, clock_timestamp())
    ON CONFLICT (kind, name) DO UPDATE SET
        failures = 0, open_until = CASE WHEN r.failures >= %s THEN NULL ELSE r.open_until END,
        last_success_at = excluded.last_success_at"""

# One statement takes a turn and advances the next one, for all lanes and workers; a turn too far away is not taken.
_TURN = """
    INSERT INTO receivers AS r (kind, name, failures, next_call_at)
    VALUES (%(kind)s, %(name)s, 0, clock_timestamp() + make_interval(secs => %(gap)s))
    ON CONFLICT (kind, name) DO UPDATE SET
        next_call_at = greatest(r.next_call_at, clock_timestamp()) + make_interval(secs => %(gap)s)
    WHERE r.next_call_at IS NULL OR r.next_call_at <= clock_timestamp() + make_interval(secs => %(max_wait)s)
    RETURNING extract(epoch FROM next_call_at - clock_timestamp())::float8 - %(gap)s"""


@dataclass(frozen=True)
class BreakerState:
    """The state of a breaker: open (no calls), half open (one contact as a trial), or closed (calls as usual)."""

    is_open: bool
    is_half_open: bool


class Breaker:
    """The circuit breaker of one receiver, in one lane."""

    def __init__(self, lane: Lane, max_batch: int) -> None:
        self._key = (lane.kind, lane.name)
        self._threshold = receiver_states.failure_threshold(max_batch)
        self._success_recorded_at = 0.0

    def state(self, connection: Connection) -> BreakerState:
        """Return the state of the breaker."""
        is_open, failures = connection.execute(_STATE, self._key).fetchone() or (False, 0)
        self._failing = failures > 0
        return BreakerState(is_open=is_open, is_half_open=not is_open and failures >= self._threshold)

    def record_failure(self, connection: Connection, why: str | None) -> bool:
        """Record a failed call; return whether the breaker is open now."""
        row = connection.execute(_RECORD_FAILURE, (*self._key, why)).fetchone()
        assert row is not None  # noqa: S101  RETURNING
        self._failing = True
        failures, is_open = row
        if is_open:  # the call was in flight when the breaker opened
            return True
        excess = failures - self._threshold
        if excess < 0:
            return False
        cool_down = min(_MAX_COOL_DOWN_SECONDS, _MIN_COOL_DOWN_SECONDS * 2 ** min(excess, 10))
        self.open(connection, cool_down * random.uniform(0.75, 1.25), why)  # noqa: S311
        return True

    def open(self, connection: Connection, cool_down_seconds: float, why: str | None) -> None:
        """Open the breaker for a cool-down: the receiver is not called before it ends."""
        kind, name = self._key
        connection.execute(_OPEN, {"kind": kind, "name": name, "cool_down": cool_down_seconds, "why": why})

    def record_success(self, connection: Connection) -> None:
        """Record a successful call, but not each one while the breaker is closed."""
        now = time.monotonic()
        if self._failing or now - self._success_recorded_at > _SUCCESS_INTERVAL_SECONDS:
            connection.execute(_RECORD_SUCCESS, (*self._key, self._threshold))
            self._failing, self._success_recorded_at = False, now

    def turn(self, connection: Connection, rate: float) -> float | None:
        """Take the next turn of a receiver with a limit of `rate` calls per second.

        Returns the delay in seconds, or None if it is too long to wait.
        """
        values = {"kind": self._key[0], "name": self._key[1], "gap": 1 / rate, "max_wait": _MAX_TURN_WAIT_SECONDS}
        row = connection.execute(_TURN, values).fetchone()
        return None if row is None else max(0.0, row[0])

    def pause(self, connection: Connection, why: str | None) -> None:
        """Keep the breaker open until an operator resumes the receiver."""
        receiver_states.pause(connection, *self._key, why)
