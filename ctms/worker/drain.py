"""Draining a lane: batch by batch, until nothing is due, the breaker opens, or the service stops."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event

import psycopg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.current import current_app
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.hooks.receivers import Outcome, Pause, SlowDown, TryLater
from ctms.sync.calls import Calls
from ctms.sync.circuit_breaker import Breaker
from ctms.sync.verdicts import Later, Verdict, is_in_progress, outcome_of, sanitize_reason, verdict_of, verdict_of_error
from ctms.sync.work import Batch, Item, Work
from ctms.words import counted
from ctms.worker.metrics import WorkerMetrics
from ctms.worker.summary import Summary

logger = logging.getLogger(__name__)

DATABASE_ERRORS = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)

MAX_JOB_SECONDS = 30.0
"""Duration after which a job ends and another one continues, so that other lanes get their turn."""


@dataclass
class Process:
    """The shared state of the lanes of one process. `stopping` ends them after the batch in flight.

    If there is a `summary`, the verdicts are added to it.
    """

    stopping: Event
    metrics: WorkerMetrics
    summary: Summary | None = None
    calls: Calls = field(default_factory=Calls)


class Drain:
    """Drains one lane, in one job."""

    def __init__(self, process: Process, work: Work) -> None:
        self._process = process
        self._work = work
        self._lane = work.lane
        self._breaker = Breaker(work.lane, work.max_batch)
        self._probing = False
        self._app = current_app()

    def run(self) -> None:
        """Process due entries. Raises `psycopg.Error` if the database fails; then nothing is lost."""
        give_up = time.monotonic() + MAX_JOB_SECONDS
        try:
            while not self._process.stopping.is_set() and time.monotonic() < give_up:
                if self._process.calls.is_stuck(self._lane) or not self._next_batch():
                    return
        except DATABASE_ERRORS:
            raise
        except Exception as error:  # a bug: the receiver must not be called every second from now on
            with pool.acquire() as connection:
                self._breaker.record_failure(connection, f"the service failed with {type(error).__name__}")
            raise

    def _next_batch(self) -> bool:
        """Process one batch. Return False if there is nothing more to do for now."""
        with pool.acquire() as connection:
            state = self._breaker.state(connection)
            if state.is_open:
                return False
            self._probing = state.is_half_open
            began = datetime.now(UTC)
            limit = 1 if self._probing else self._work.max_batch
            items = self._work.claim(connection, limit, probing=self._probing)
            if not items:
                return False
            batches, known = self._work.prepare(connection, items)
            if known:
                self._settle(connection, Batch("", list(known), began), known)
        for batch in batches:
            for part in _suspects_alone(replace(batch, began=began)):
                if not self._attempt(part):
                    return False
        return True

    def _attempt(self, batch: Batch) -> bool:
        """Call the receiver with the batch, or its halves. Return False if it is not to be called any more."""
        if not self._wait_for_turn():
            return False
        started = time.perf_counter()
        try:
            answer = self._process.calls.call(
                self._lane, lambda: self._work.call(batch), self._work.timeout, lambda: self._ended_late(batch)
            )
            outcomes = {item: outcome_of(answer, item.email_id) for item in batch.items}
        except Exception as error:  # noqa: BLE001  whatever a plugin raises
            failure = error
        else:
            self._process.metrics.count_call(self._lane, batch.method, outcomes.values(), time.perf_counter() - started)
            return self._answered(batch, outcomes)
        # Not in the except block: it would be the context of the exceptions of the halves.
        self._process.metrics.count_failed_call(self._lane, batch.method, failure, time.perf_counter() - started)
        return self._failed(batch, failure)

    def _answered(self, batch: Batch, outcomes: Mapping[Item, Outcome]) -> bool:
        given = outcomes.values()
        with pool.acquire() as connection:
            self._settle(
                connection, batch, {item: verdict_of(outcome, item.attempts) for item, outcome in outcomes.items()}
            )
            pause = next((outcome for outcome in given if isinstance(outcome, Pause)), None)
            if pause is not None:
                self._breaker.pause(connection, sanitize_reason(pause.reason))
                logger.warning("%s %s pauses: %s", self._lane.kind, self._lane.name, sanitize_reason(pause.reason))
                return False
            slow_downs = [outcome for outcome in given if isinstance(outcome, SlowDown)]
            if slow_downs:
                longest = max(slow_downs, key=lambda slow_down: slow_down.after)
                self._breaker.open(connection, longest.after, sanitize_reason(longest.reason))
                return False
            later = [outcome for outcome in given if isinstance(outcome, TryLater)]
            if len(later) == len(given):
                failed = [one for one in later if batch.method != "verify" or not is_in_progress(one)]
                if failed:
                    return not self._breaker.record_failure(connection, sanitize_reason(failed[0].reason))
                return True  # the other system is still processing
            self._breaker.record_success(connection)
            return True

    def _failed(self, batch: Batch, error: Exception) -> bool:
        """Bisect the batch to isolate the contact that made the receiver raise, unless it fails as a whole.

        A network error may also be about a contact: libraries raise one for statuses such as 400.
        """
        alone = len(batch.items) == 1
        of_network = isinstance(error, OSError)
        logger.warning(
            "%s %s raised %s with %s",
            self._lane.kind,
            self._lane.name,
            type(error).__name__,
            counted(len(batch.items), "contact"),
            # Once, not for each half; network failures occur in swarms, and are no bugs.
            exc_info=error if alone and not of_network else None,
        )
        with pool.acquire() as connection:
            is_open = self._breaker.record_failure(connection, f"raised {type(error).__name__}")
            stuck = self._process.calls.is_stuck(self._lane)
            if alone or is_open or stuck:
                # It is unclear which contact is faulty if others failed too.
                theirs = alone and not is_open and not self._probing
                self._settle(connection, batch, {item: _verdict(item, error, theirs=theirs) for item in batch.items})
                return not (is_open or stuck or self._probing)
        middle = len(batch.items) // 2
        halves = (batch.items[:middle], batch.items[middle:])
        return all(self._attempt(replace(batch, items=half)) for half in halves)

    def _settle(self, connection: Connection, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        with connection.transaction():
            self._work.settle(connection, batch, verdicts)
        self._process.metrics.count_verdicts(self._lane, verdicts.values())
        if self._process.summary is not None:
            self._process.summary.add(self._lane, batch, verdicts)

    def _wait_for_turn(self) -> bool:
        """Enforce the receiver's rate. Return False if the service stops, or the turn is too far away to wait for."""
        if self._process.stopping.is_set():
            return False
        if self._work.rate is None:
            return True
        with pool.acquire() as connection:
            seconds = self._breaker.turn(connection, self._work.rate)
        return seconds is not None and not self._process.stopping.wait(seconds)

    def _ended_late(self, batch: Batch) -> None:
        while True:
            try:
                with self._app.app_context(), pool.acquire() as connection:
                    self._work.handle_late_end(connection, batch)
            except DATABASE_ERRORS as error:
                logger.warning("the database is not available: %s", type(error).__name__)
            else:
                logger.warning("%s %s ended a call that was given up", self._lane.kind, self._lane.name)
                return
            if self._process.stopping.wait(1):
                return


def _suspects_alone(batch: Batch) -> Sequence[Batch]:
    """Separate the contacts that made the receiver raise before from the others."""
    suspects = [item for item in batch.items if item.failures]
    if not suspects or len(batch.items) == 1:
        return [batch]
    others = [item for item in batch.items if not item.failures]
    alone = [replace(batch, items=[item]) for item in suspects]
    return [replace(batch, items=others), *alone] if others else alone


def _verdict(item: Item, error: Exception, *, theirs: bool) -> Verdict:
    if theirs:
        return verdict_of_error(error, item.attempts, item.failures)
    verdict = verdict_of_error(error, item.attempts, 0)
    return replace(verdict, counts=False) if isinstance(verdict, Later) else verdict
