"""Reads from replicas, which have everything that was committed on the primary when the read began.

So a client reads its own writes, and those of everybody else, as from the primary
(docs/decisions/028-reads-wait-for-the-replica.md). Without such a replica the primary is read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

import psycopg
from flask import Flask
from psycopg import errors
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.current import current_app
from ctms.database.pool import (
    FAILOVER_ARGUMENTS,
    Connection,
    TimedConnection,
    acquire_from,
    connect_arguments,
    libpq_url,
    make_pool,
    timed,
)
from ctms.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

COOL_DOWN_SECONDS = 5.0
"""Duration for which a process reads from the primary after a replica was not usable."""


class ReplicaRead(StrEnum):
    """The result of a read that may go to a replica. All but the first are read from the primary."""

    REPLICA = "replica"
    UNREACHABLE = "unreachable"
    BEHIND = "behind"
    PROMOTED = "promoted"
    CANCELED = "canceled"
    ASYNCHRONOUS = "asynchronous"
    COOLING_DOWN = "cooling_down"


REASONS = {
    ReplicaRead.UNREACHABLE: "it cannot be reached",
    ReplicaRead.BEHIND: "it is behind",
    ReplicaRead.PROMOTED: "it is a primary",
    ReplicaRead.CANCELED: "it canceled the statement",
    ReplicaRead.ASYNCHRONOUS: "the primary commits asynchronously (synchronous_commit = off)",
}

# The write-ahead log up to here has all transactions that are committed, unless a commit does not wait for it.
_POSITION = """
    SELECT CASE WHEN current_setting('synchronous_commit') <> 'off' THEN pg_current_wal_flush_lsn()::text END"""
_HAS_REPLAYED = "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn() >= %s::pg_lsn"


class Replicas:
    """The replicas at `CTMS_DB_READ_URL`, which reads use while they can. `observe` counts the results."""

    def __init__(self, settings: Settings, url: str) -> None:
        arguments = {**connect_arguments(settings), **FAILOVER_ARGUMENTS, "autocommit": True}
        self.url = url
        self.observe: Callable[[ReplicaRead], None] = lambda _: None
        self.pool = make_pool(settings, lambda: TimedConnection.connect(libpq_url(url), **arguments))
        self._max_lag = settings.db_read_max_lag
        self._problem: ReplicaRead | None = None
        self._retry_at = 0.0

    def read(self, primary: Connection, run: Callable[[Connection], T]) -> T:
        """Call a function that only reads with a connection to a replica, or to the primary, and return its result.

        A statement that exceeds its timeout is not repeated. Raises what the function raises.
        """
        if time.monotonic() < self._retry_at:
            self.observe(ReplicaRead.COOLING_DOWN)
            return run(primary)
        if self._problem is not None:  # one read tries again, and the others do not wait with it
            self._retry_at = time.monotonic() + COOL_DOWN_SECONDS
        position = _position(primary)
        problem = ReplicaRead.ASYNCHRONOUS
        if position is not None:
            try:
                with acquire_from(self.pool) as replica, timed(replica, "read"):
                    for _ in self._attempts():
                        # One transaction, so that a proxy uses one server for both statements. It ends before a pause:
                        # the replay of a vacuum may wait until a transaction ends, so none may wait for the replay.
                        with replica.transaction():
                            problem = _state(replica, position)
                            if problem is ReplicaRead.REPLICA:
                                found = run(replica)
                        if problem is not ReplicaRead.BEHIND:
                            break
                    if problem is ReplicaRead.REPLICA:
                        self._note(problem)
                        return found
            except errors.QueryCanceled:
                raise
            except (psycopg.OperationalError, PoolTimeout) as error:
                was_canceled = isinstance(error, errors.SerializationFailure)  # by the replay of a vacuum, for instance
                problem = ReplicaRead.CANCELED if was_canceled else ReplicaRead.UNREACHABLE
        self._note(problem)
        return run(primary)

    def open_connection(self, primary: Connection, **parameters: Any) -> Connection | None:
        """Open a separate connection to a replica that has everything committed now, None if that is not possible."""
        position = _position(primary)
        result = ReplicaRead.ASYNCHRONOUS
        if position is not None:
            try:
                replica = psycopg.connect(libpq_url(self.url), **{**parameters, **FAILOVER_ARGUMENTS})
                for _ in self._attempts():
                    result = _state(replica, position)
                    if result is not ReplicaRead.BEHIND:
                        break
                if result is not ReplicaRead.REPLICA:
                    replica.close()
            except psycopg.OperationalError:
                result = ReplicaRead.UNREACHABLE
        self._note(result)
        return replica if result is ReplicaRead.REPLICA else None

    def _attempts(self) -> Iterator[None]:
        """Yield once, and then again after each pause, until the replica has been behind for the maximum lag."""
        give_up = time.monotonic() + self._max_lag
        pause = 0.001
        yield
        while time.monotonic() + pause <= give_up:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
            yield

    def _note(self, result: ReplicaRead) -> None:
        """Count the result, and log it if it differs from the last one."""
        self.observe(result)
        problem = None if result is ReplicaRead.REPLICA else result
        if result in {ReplicaRead.REPLICA, ReplicaRead.CANCELED}:
            self._retry_at = 0.0
        else:
            self._retry_at = time.monotonic() + COOL_DOWN_SECONDS
            self.pool.failed_at = time.monotonic()  # a new connection may reach another replica
        if problem is not self._problem:
            self._problem = problem
            if problem is None:
                logger.info("reads use the replica again")
            else:
                logger.warning("reads use the primary instead of the replica: %s", REASONS[problem])


def _position(primary: Connection) -> str | None:
    """Return the position in the log up to which it has everything that is committed, None if that is not known."""
    row = primary.execute(_POSITION).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    position: str | None = row[0]
    return position


def _state(replica: Connection, position: str) -> ReplicaRead:
    """Return whether a replica has replayed the log up to the position, is behind, or no replica any more."""
    row = replica.execute(_HAS_REPLAYED, (position,)).fetchone()
    assert row is not None  # noqa: S101  a SELECT without FROM has one row
    is_replica, has_replayed = row
    if not is_replica:
        return ReplicaRead.PROMOTED
    return ReplicaRead.REPLICA if has_replayed else ReplicaRead.BEHIND


def init_replicas(app: Flask, settings: Settings) -> None:
    """Create the pool of the replicas, if there are any, without connecting."""
    url = settings.db_read_url
    app.extensions["ctms.replicas"] = None if url is None else Replicas(settings, url)


def find_replicas(app: Flask) -> Replicas | None:
    """Return the replicas of an app, None without `CTMS_DB_READ_URL`."""
    found: Replicas | None = app.extensions["ctms.replicas"]
    return found


def read_replica(primary: Connection, run: Callable[[Connection], T]) -> T:
    """Call a function with a connection to a replica if there is one that is usable, else to the primary.

    `primary` is not in a transaction. The function sees everything that is committed now, and only reads.
    """
    replicas = find_replicas(current_app())
    return run(primary) if replicas is None else replicas.read(primary, run)
