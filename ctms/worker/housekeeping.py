"""Housekeeping: small maintenance jobs on the database, which each worker starts hourly.

A job runs in one worker at a time. It must be able to run again at any time, and after it was interrupted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event

from ctms.clients import idempotency
from ctms.database import pool
from ctms.database.errors import describe, driver_error
from ctms.database.pool import Connection
from ctms.export import jobs as export_jobs
from ctms.history import deletions
from ctms.history.partitions import create_partitions
from ctms.subject_access.requests import delete_expired
from ctms.worker.drain import DATABASE_ERRORS
from ctms.worker.retention import run_if_due

logger = logging.getLogger(__name__)

EVERY_SECONDS = 3600.0

# Of a transaction of its own: a job commits in batches, and a proxy that pools transactions would leave a lock of the
# session to a connection of others. The server releases it if the worker is killed.
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('ctms housekeeping'), hashtext(%s))"
_KEEP = "SET LOCAL idle_in_transaction_session_timeout = 0"


@dataclass(frozen=True)
class HousekeepingJob:
    """A maintenance job.

    `run` is called in the app's context with an autocommit connection. It commits in short transactions, because
    writers and the feeds wait for it, and returns between two of them when the event is set: the worker stops.
    """

    name: str
    run: Callable[[Connection, Event], object]


JOBS: Sequence[HousekeepingJob] = (
    HousekeepingJob("event partitions", lambda connection, _: create_partitions(connection)),
    HousekeepingJob("expired access reports", lambda connection, _: delete_expired(connection)),
    HousekeepingJob("expired exports", lambda connection, _: export_jobs.delete_expired(connection)),
    HousekeepingJob("purge of deletions", deletions.purge),
    HousekeepingJob("purge of idempotency keys", idempotency.purge),
    HousekeepingJob("retention", run_if_due),
)
"""The jobs, in their order, except the one that reports metrics (`ctms.worker.stored_documents`)."""


def _ignore(_name: str) -> None:
    """Do nothing."""


def run_jobs(
    stopping: Event, jobs: Sequence[HousekeepingJob] | None = None, on_failure: Callable[[str], object] = _ignore
) -> None:
    """Run the jobs (None: all) that no other worker is running, until `stopping` is set.

    Errors are logged, and `on_failure` is called with the name of the job.
    """
    for job in JOBS if jobs is None else jobs:
        if stopping.is_set():
            return
        try:
            _run(job, stopping)
        except DATABASE_ERRORS as error:
            logger.warning("housekeeping job %s failed, and will be repeated: %s", job.name, type(error).__name__)
            on_failure(job.name)
        except Exception as error:
            cause = driver_error(error)
            reason = type(error).__name__ if cause is None else describe(cause)
            logger.exception("housekeeping job %s failed, and will be repeated: %s", job.name, reason)
            on_failure(job.name)


def _run(job: HousekeepingJob, stopping: Event) -> None:
    with pool.acquire() as lock, lock.transaction():
        row = lock.execute(_LOCK, (job.name,)).fetchone()
        if row is None or not row[0]:
            return
        lock.execute(_KEEP)  # the transaction keeps no snapshot: it does not hold back vacuum
        with pool.acquire() as connection:
            job.run(connection, stopping)
