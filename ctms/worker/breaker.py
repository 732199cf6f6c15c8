"""How a receiver is doing, known to all workers: paused by hand, or given a rest after it failed again and again.

The state stands in the table `receivers`. After a rest one contact is tried, the one that was tried least; when that
works the receiver gets full batches again.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from ctms.outbox import receivers
from ctms.outbox.lanes import Lane
from ctms.pool import Connection
from ctms.worker.verdicts import MOST_FAILURES

_SHORTEST_REST_IN_SECONDS = 2.0
_LONGEST_REST_IN_SECONDS = 300.0
_SUCCESS_NOTED_EVERY_SECONDS = 5.0
_PATIENCE_IN_SECONDS = 2.0

_STATE = """
    SELECT paused_at IS NOT NULL OR coalesce(open_until > clock_timestamp(), false), failures
    FROM receivers WHERE kind = %s AND name = %s"""

_FAILED = """
    INSERT INTO receivers AS r (kind, name, failures, last_error) VALUES (%s, %s, 1, %s)
    ON CONFLICT (kind, name) DO UPDATE SET
        failures = r.failures + CASE WHEN r.open_until > clock_timestamp() THEN 0 ELSE 1 END,
        last_error = excluded.last_error
    RETURNING failures, coalesce(open_until > clock_timestamp(), false)"""

_REST = """
    INSERT INTO receivers AS r (kind, name, failures, open_until, last_error)
    VALUES (%s, %s, 0, clock_timestamp() + make_interval(secs => %s), %s)
    ON CONFLICT (kind, name) DO UPDATE SET
        open_until = greatest(r.open_until, excluded.open_until), last_error = coalesce(%s, r.last_error)"""

_WORKED = """
    INSERT INTO receivers AS r (kind, name, failures, last_success_at) VALUES (%s, %s, 0, clock_timestamp())
    ON CONFLICT (kind, name) DO UPDATE SET
        failures = 0, open_until = CASE WHEN r.failures >= %s THEN NULL ELSE r.open_until END,
        last_success_at = excluded.last_success_at"""

# One statement takes a turn and moves the next one on, for all lanes and workers; none is taken that is far away.
_TURN = """
    INSERT INTO receivers AS r (kind, name, failures, next_call_at)
    VALUES (%(kind)s, %(name)s, 0, clock_timestamp() + make_interval(secs => %(gap)s))
    ON CONFLICT (kind, name) DO UPDATE SET
        next_call_at = greatest(r.next_call_at, clock_timestamp()) + make_interval(secs => %(gap)s)
    WHERE r.next_call_at IS NULL OR r.next_call_at <= clock_timestamp() + make_interval(secs => %(patience)s)
    RETURNING extract(epoch FROM next_call_at - clock_timestamp())::float8 - %(gap)s"""


@dataclass(frozen=True)
class State:
    """Whether the receiver may be called now, and whether it is being tried after a rest."""

    closed: bool
    probing: bool


class Breaker:
    """Keeps account of the calls to one receiver, in one lane.

    More failures in a row are needed than finding one bad contact in a batch by halves takes, and parking it when
    nothing else waits.
    """

    def __init__(self, lane: Lane, max_batch: int) -> None:
        self._key = (lane.kind, lane.name)
        self._threshold = max_batch.bit_length() + MOST_FAILURES
        self._noted = 0.0

    def state(self, connection: Connection) -> State:
        """Ask how the receiver is doing."""
        resting, failures = connection.execute(_STATE, self._key).fetchone() or (False, 0)
        self._failing = failures > 0
        return State(closed=resting, probing=failures >= self._threshold)

    def failed(self, connection: Connection, why: str | None) -> bool:
        """Note a call that failed; returns True when the receiver gets a rest."""
        row = connection.execute(_FAILED, (*self._key, why)).fetchone()
        assert row is not None  # noqa: S101  RETURNING
        self._failing = True
        failures, resting = row
        if resting:  # the call was under way when the rest began
            return True
        over = failures - self._threshold
        if over < 0:
            return False
        rest = min(_LONGEST_REST_IN_SECONDS, _SHORTEST_REST_IN_SECONDS * 2 ** min(over, 10))
        self.rest(connection, rest * random.uniform(0.75, 1.25), why)  # noqa: S311
        return True

    def rest(self, connection: Connection, seconds: float, why: str | None) -> None:
        """Call the receiver no more for so many seconds."""
        connection.execute(_REST, (*self._key, seconds, why, why))

    def worked(self, connection: Connection) -> None:
        """Note a call that worked, not each one while all is well."""
        now = time.monotonic()
        if self._failing or now - self._noted > _SUCCESS_NOTED_EVERY_SECONDS:
            connection.execute(_WORKED, (*self._key, self._threshold))
            self._failing, self._noted = False, now

    def turn(self, connection: Connection, rate: float) -> float | None:
        """Take the next turn of a receiver that `rate` calls a second may begin to.

        Returns in how many seconds it is, or None when that is too long to wait for.
        """
        values = {"kind": self._key[0], "name": self._key[1], "gap": 1 / rate, "patience": _PATIENCE_IN_SECONDS}
        row = connection.execute(_TURN, values).fetchone()
        return None if row is None else max(0.0, row[0])

    def pause(self, connection: Connection, why: str | None) -> None:
        """Call the receiver no more until an operator resumes it."""
        receivers.pause(connection, *self._key, why)
