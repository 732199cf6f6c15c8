"""The background service: a Procrastinate worker, which also polls for due entries and for jobs of dead workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Any

import procrastinate
import psycopg
from flask import Flask
from procrastinate.exceptions import ConnectorException
from procrastinate.job_context import JobContext
from procrastinate.worker import Worker

from ctms.database import pool
from ctms.database.engine import database_url
from ctms.database.pool import failover_arguments, libpq_url, preparation_arguments
from ctms.errors import OperatorError
from ctms.export import jobs as export_jobs
from ctms.hooks.manager import Plugins
from ctms.hooks.receivers import Backend, DeletionHandler
from ctms.outbox.lanes import ACCESS, BACKEND, EXPORT, HANDLER, QUEUES, TASK, Lane, lanes_of
from ctms.settings import Settings
from ctms.subject_access import copies
from ctms.sync.backends import BackendWork
from ctms.sync.erasure_tasks import ErasureWork
from ctms.sync.work import Work
from ctms.worker import housekeeping, stored_documents
from ctms.worker.drain import DATABASE_ERRORS, Drain, Process
from ctms.worker.housekeeping import HousekeepingJob
from ctms.worker.jobs import defer_due_lanes, jobs_of, remove_jobs_of_dead_workers, remove_unreported_jobs
from ctms.worker.metrics import WorkerMetrics
from ctms.worker.summary import Summary

logger = logging.getLogger(__name__)

SWEEP_EVERY_SECONDS = 1.0
RECOVER_EVERY_SECONDS = 5.0
LOOK_EVERY_SECONDS = 5.0
HEARTBEAT_EVERY_SECONDS = 3.0
DEAD_AFTER_SECONDS = 15.0
"""A worker without a heartbeat for this long was killed: its jobs are recovered."""

_PAUSE_IN_SECONDS = 0.2
_CONNECTION_TIMEOUT_IN_SECONDS = 10
"""How long Procrastinate waits for a connection, in particular one to sign off with while the database is down."""
_ERRORS = (*DATABASE_ERRORS, ConnectorException)


@dataclass(frozen=True)
class WorkerOptions:
    """Options of the worker: number of concurrent lanes, queues (None: all), whether to exit when nothing is due."""

    concurrency: int
    queues: Sequence[str] | None = None
    once: bool = False


class BackgroundService:
    """The background service of one process; `publish` is called whenever its metrics are updated."""

    def __init__(
        self, app: Flask, options: WorkerOptions, publish: Callable[[WorkerMetrics], None] = lambda _: None
    ) -> None:
        self._app = app
        self._options = options
        self._publish = publish
        self.stopping = Event()
        plugins: Plugins = app.extensions["ctms.plugins"]
        receivers: list[tuple[str, Backend | DeletionHandler]] = [
            *((BACKEND, one.value) for one in plugins.collect("ctms_backends")),
            *((HANDLER, one.value) for one in plugins.collect("ctms_deletion_handlers")),
        ]
        wanted = options.queues or QUEUES.values()
        self._receivers = {
            lane: one for kind, one in receivers for lane in lanes_of(kind, one) if QUEUES[kind] in wanted
        }
        self._service_lanes: dict[Lane, Callable[[Event], None]] = {}
        if QUEUES[ACCESS] in wanted:
            self._service_lanes[copies.LANE] = copies.drain
        settings: Settings = app.extensions["ctms.settings"]
        if QUEUES[EXPORT] in wanted and settings.export_dir is not None:
            self._service_lanes[export_jobs.LANE] = export_jobs.drain
        names = [job.name for job in housekeeping.JOBS] + [stored_documents.NAME]
        with_rules = settings.retention_file is not None
        self.metrics = WorkerMetrics(self._receivers, housekeeping=names, retention=with_rules)
        # It remembers failed contacts: a long-running service must not.
        self.summary = Summary() if options.once else None
        self._process = Process(self.stopping, self.metrics, self.summary)
        self._next_look = self._next_housekeeping = 0.0
        self._worker: Worker | None = None
        self._in_flight: set[int] = set()
        self._suspects: set[int] = set()

    @property
    def lanes(self) -> list[Lane]:
        """The lanes of backends and deletion handlers that it drains."""
        return list(self._receivers)

    @property
    def runs_exports(self) -> bool:
        """Whether it runs the exports of the API."""
        return export_jobs.LANE in self._service_lanes

    def stop(self) -> None:
        """Stop after the batches in flight; may be called from a signal handler."""
        self.stopping.set()
        if self._worker is not None:
            self._worker.stop()  # type: ignore[no-untyped-call]

    def run(self) -> None:
        """Run until stopped, or, with `once`, until nothing is due. Survives outages of the database.

        Raises `OperatorError` with `once` if the database is not available.
        """
        while not self.stopping.is_set():
            try:
                asyncio.run(self._run())
            except _ERRORS as error:
                cause = error.__cause__ or error  # Procrastinate has one error for all
                if isinstance(cause, psycopg.DataError | psycopg.ProgrammingError):
                    raise
                if self._options.once:
                    raise OperatorError("the database is not available, and work may be left over") from error
                logger.warning("the database is not available: %s", type(cause).__name__)
            if self._options.once:
                return
            self._pause()

    def _pause(self) -> None:
        """Wait for a second, or until stopped.

        Not for the event: `stop` may be called from a signal handler, in this thread, and would then wait for the lock
        that this thread holds in `Event.wait`.
        """
        end = time.monotonic() + 1
        while not self.stopping.is_set() and time.monotonic() < end:
            time.sleep(0.05)

    async def _run(self) -> None:
        # The loop's default executor has only as many threads as cores, plus four: lanes would wait for each other.
        threads = ThreadPoolExecutor(self._options.concurrency + 3, thread_name_prefix="lane")
        asyncio.get_running_loop().set_default_executor(threads)
        due = await self._swept()  # it fails at once while the database is down, for which Procrastinate would wait
        jobs = self._jobs()
        async with jobs.open_async():
            while due or not self._options.once:
                worker = self._make_worker(jobs)
                ended = asyncio.Event()
                beside = asyncio.create_task(self._maintain(worker, ended))
                try:
                    await worker.run()  # type: ignore[no-untyped-call]
                finally:
                    ended.set()
                    beside.cancel()
                    with suppress(asyncio.CancelledError):
                        await beside
                if self.stopping.is_set() or not self._options.once:
                    return
                await asyncio.sleep(_PAUSE_IN_SECONDS)  # due entries may be in flight in another worker
                due = await self._swept()
        await asyncio.to_thread(self._keep_house)

    def _jobs(self) -> procrastinate.App:
        """Return Procrastinate's app, with its single task."""
        url = database_url(self._app)()
        settings: Settings = self._app.extensions["ctms.settings"]
        arguments = {
            "application_name": "ctms worker",
            "connect_timeout": 5,
            **failover_arguments(url),
            **preparation_arguments(settings),
        }
        connector = procrastinate.PsycopgConnector(
            conninfo=libpq_url(url), kwargs=arguments, min_size=1, max_size=4, timeout=_CONNECTION_TIMEOUT_IN_SECONDS
        )
        jobs = procrastinate.App(connector=connector)
        jobs.task(name=TASK, pass_context=True)(self._drain_lane)
        return jobs

    def _make_worker(self, jobs: procrastinate.App) -> Worker:
        self._worker = Worker(
            app=jobs,
            queues=None if self._options.queues is None else list(self._options.queues),  # it sends a tuple as a row
            name="ctms",
            concurrency=self._options.concurrency,
            wait=not self._options.once,
            fetch_job_polling_interval=SWEEP_EVERY_SECONDS / 2,
            delete_jobs="always",  # unfinished work is stored in the tables
            install_signal_handlers=False,
            update_heartbeat_interval=HEARTBEAT_EVERY_SECONDS,
            stalled_worker_timeout=DEAD_AFTER_SECONDS,
        )
        return self._worker

    def _drain_lane(self, context: JobContext, /, **lane: Any) -> None:
        """Drain the lane of a job."""
        job = context.job.id
        assert job is not None  # noqa: S101  it comes from the queue
        self._in_flight.add(job)
        try:
            self._drain(lane)
        except DATABASE_ERRORS as error:  # due entries stay due
            logger.warning("the database is not available: %s", type(error).__name__)
        finally:
            self._in_flight.discard(job)

    def _drain(self, lane: Mapping[str, Any]) -> None:
        found = Lane(**lane)
        if found in self._service_lanes:
            with self._app.app_context():
                self._service_lanes[found](self.stopping)
            return
        receiver = self._receivers.get(found)
        if receiver is None:  # another worker has the plugin; pending entries are kept for it
            return
        with self._app.app_context():
            Drain(self._process, _work(found, receiver)).run()

    async def _maintain(self, worker: Worker, ended: asyncio.Event) -> None:
        """Send heartbeats, and poll for a stop, for due entries and for jobs of dead workers, until `ended` is set.

        A cancellation alone may be lost: before Python 3.12, `asyncio.wait_for`, in which a heartbeat waits for a
        connection of the pool, ignores one that comes together with the connection. It only makes the end sooner.

        Housekeeping runs beside it: its jobs may take longer than the heartbeat's timeout.

        A worker that begins to run forgets that it was stopped before.

        Procrastinate's worker stops its heartbeat when it begins to stop, while its batches in flight may take longer
        than the heartbeat's timeout. If this task fails the worker stops: otherwise lanes would stay blocked unnoticed.
        """
        next_recovery = next_beat = 0.0
        jobs: asyncio.Task[None] | None = None
        try:
            while not ended.is_set():
                if self.stopping.is_set():
                    worker.stop()  # type: ignore[no-untyped-call]
                if worker.worker_id is not None and time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + HEARTBEAT_EVERY_SECONDS
                    await worker.app.job_manager.update_heartbeat(worker.worker_id)
                if time.monotonic() >= next_recovery:
                    next_recovery = time.monotonic() + RECOVER_EVERY_SECONDS
                    await asyncio.to_thread(self._recover, worker.worker_id)
                if (jobs is None or jobs.done()) and self._is_housekeeping_due():
                    jobs = asyncio.create_task(asyncio.to_thread(self._keep_house))
                await asyncio.sleep(SWEEP_EVERY_SECONDS)
                await self._swept()
        except Exception:
            worker.stop()  # type: ignore[no-untyped-call]
            raise

    def _is_housekeeping_due(self) -> bool:
        """Return whether the jobs are due, and set the next time. With `once` they run at the end."""
        if self._options.once or time.monotonic() < self._next_housekeeping:
            return False
        self._next_housekeeping = time.monotonic() + housekeeping.EVERY_SECONDS
        return True

    def _keep_house(self) -> None:
        with self._app.app_context():
            fill = partial(stored_documents.run, on_check=self.metrics.count_checked_documents)
            jobs = (*housekeeping.JOBS, HousekeepingJob(stored_documents.NAME, fill))
            housekeeping.run_jobs(self.stopping, jobs, self.metrics.count_failed_housekeeping)

    def _recover(self, worker: int | None) -> None:
        """Release the lanes of dead workers, and those whose job has ended here without the queue's knowledge.

        Such a job is unknown to this process twice in a row: one that has just begun or ended is so only for a moment.
        """
        with self._app.app_context(), pool.acquire() as connection:
            for job in remove_jobs_of_dead_workers(connection, DEAD_AFTER_SECONDS):
                logger.warning("the batch of job %s of a dead worker is recovered", job)
            if worker is None:
                return
            idle = jobs_of(connection, worker) - self._in_flight
            forgotten = (
                remove_unreported_jobs(connection, worker, idle & self._suspects) if idle & self._suspects else []
            )
            for job in forgotten:
                logger.warning("job %s has ended without the queue's knowing", job)
            self._suspects = idle.difference(forgotten)

    async def _swept(self) -> bool:
        return await asyncio.to_thread(self._sweep)

    def _sweep(self) -> bool:
        with self._app.app_context():
            calls = self._process.calls
            due = defer_due_lanes([lane for lane in (*self.lanes, *self._service_lanes) if not calls.is_stuck(lane)])
            looks = time.monotonic() >= self._next_look
            if looks:
                began = time.monotonic()
                with pool.acquire() as connection:
                    self.metrics.update_waiting(connection)
                took = time.monotonic() - began
                self._next_look = began + max(LOOK_EVERY_SECONDS, 20 * took)  # counting a large backlog takes long
        self.metrics.mark_loop()
        if looks:
            self._publish(self.metrics)
        return due


def _work(lane: Lane, receiver: Backend | DeletionHandler) -> Work:
    return BackendWork(lane, receiver) if isinstance(receiver, Backend) else ErasureWork(lane, receiver)
