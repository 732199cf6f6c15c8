"""The tasks next to the jobs: releasing lanes, and the metrics of pending contacts."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from procrastinate.manager import JobManager
from procrastinate.worker import Worker as ProcrastinateWorker

from ctms.database import pool
from ctms.outbox.lanes import BACKEND, HANDLER, TASK, Lane
from ctms.worker import service as module
from ctms.worker.metrics import WorkerMetrics
from ctms.worker.service import BackgroundService, WorkerOptions
from tests.sync.working import Worker, row, rows

Make = Callable[[int], list[str]]


def ends(function: Callable[[], object], *, within: float) -> bool:
    """Call it in a thread; return whether it ends within so many seconds."""
    thread = Thread(target=function, daemon=True)
    thread.start()
    thread.join(within)
    return not thread.is_alive()


def test_it_drains_only_the_chosen_queues(app: Flask) -> None:
    backend, handler = Lane(BACKEND, "other", 0), Lane(HANDLER, "other", 0)

    assert BackgroundService(app, WorkerOptions(1)).lanes == [backend, handler]
    assert BackgroundService(app, WorkerOptions(1, ["backends"])).lanes == [backend]
    assert BackgroundService(app, WorkerOptions(1, ["erasures"])).lanes == [handler]


def test_a_job_that_has_ended_without_the_queues_knowing_is_removed_at_the_second_look(app: Flask) -> None:
    service = BackgroundService(app, WorkerOptions(1))
    worker = row("INSERT INTO procrastinate_workers DEFAULT VALUES RETURNING id")
    ended, runs = rows(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, status, worker_id)"
        " SELECT 'backends', %s, 'doing', %s FROM generate_series(1, 2) RETURNING id",
        TASK,
        worker,
    )
    service._in_flight.add(runs)

    service._recover(worker)
    assert row("SELECT count(*) FROM procrastinate_jobs") == 2
    service._recover(worker)

    assert rows("SELECT id FROM procrastinate_jobs") == [runs]
    assert ended != runs


def test_a_lane_whose_call_is_stuck_gets_no_job(app: Flask, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make(1)
    service = BackgroundService(app, WorkerOptions(1))
    monkeypatch.setattr(service._process.calls, "is_stuck", lambda lane: lane.kind == BACKEND)
    assert not service._sweep()

    monkeypatch.setattr(service._process.calls, "is_stuck", lambda _: False)
    assert service._sweep()
    assert rows("SELECT lock FROM procrastinate_jobs") == ["backend:other:0"]


def test_it_sends_heartbeats_until_it_stops(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when Procrastinate's worker is to end and waits for its last job."""
    beats: list[int] = []

    class Jobs:
        async def update_heartbeat(self, worker: int) -> None:
            beats.append(worker)

    class Swept(BackgroundService):
        async def _swept(self) -> bool:
            if len(beats) == 3:
                raise asyncio.CancelledError
            return False

    monkeypatch.setattr(module, "SWEEP_EVERY_SECONDS", 0)
    monkeypatch.setattr(module, "HEARTBEAT_EVERY_SECONDS", 0)
    monkeypatch.setattr(module, "RECOVER_EVERY_SECONDS", 1000)
    worker: Any = SimpleNamespace(worker_id=7, app=SimpleNamespace(job_manager=Jobs()))
    service = Swept(app, WorkerOptions(1))
    monkeypatch.setattr(service, "_recover", lambda _: None)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(service._maintain(worker, asyncio.Event()))

    assert beats == [7, 7, 7]


def test_a_stop_during_the_start_is_not_lost(migrated_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    class StoppedWorker(ProcrastinateWorker):
        async def run(self) -> None:
            service.stop()
            await super().run()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(module, "Worker", StoppedWorker)
    service = BackgroundService(migrated_app, WorkerOptions(1))

    assert ends(service.run, within=60)


def test_a_lost_cancellation_does_not_keep_it_running(migrated_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` loses one until Python 3.12, in a pool of connections at the moment when one comes back."""
    begun = threading.Event()

    class EndedWorker(ProcrastinateWorker):
        async def run(self) -> None:
            self.worker_id = 7
            while not begun.is_set():
                await asyncio.sleep(0.01)
            service.stop()

    async def lose(_jobs: JobManager, _worker: int) -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    monkeypatch.setattr(module, "Worker", EndedWorker)
    monkeypatch.setattr(JobManager, "update_heartbeat", lose)
    service = BackgroundService(migrated_app, WorkerOptions(1))

    assert ends(service.run, within=30)


def test_a_signal_while_it_waits_for_the_database_ends_it(app: Flask) -> None:
    """Whatever the waiting thread executes when the handler interrupts it: it may hold a lock of the event."""

    def interrupt(frame: FrameType, _event: str, _argument: object) -> Any:
        if frame.f_code.co_filename == threading.__file__ or frame.f_code.co_name == "_pause":
            service.stop()
        return interrupt

    def pause() -> None:
        sys.settrace(interrupt)
        service._pause()

    service = BackgroundService(app, WorkerOptions(1))

    assert ends(pause, within=30)


def test_pending_contacts_are_measured(make: Make) -> None:
    made = make(6)
    rows("UPDATE outbox SET waiting_since = clock_timestamp() - interval '90 seconds' WHERE email_id = %s", made[0])
    rows("UPDATE outbox SET attempts = 1 WHERE email_id = ANY(%s::uuid[])", made[:2])
    rows("UPDATE outbox SET parked_at = now() WHERE email_id = %s", made[5])
    worker = Worker()

    with pool.acquire() as connection:
        worker.metrics.update_waiting(connection)

    assert worker.count("ctms_background_sync_backlog") == 5
    assert worker.count("ctms_background_sync_retries") == 2
    assert worker.count("ctms_background_sync_parked") == 1
    assert worker.count("ctms_background_sync_age_seconds") == pytest.approx(90, abs=10)


def test_nothing_waits(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    metrics = WorkerMetrics([Lane(BACKEND, "a", 0), Lane(HANDLER, "b", 0)])

    with pool.acquire() as connection:
        metrics.update_waiting(connection)

    for name in ("a", "b"):
        assert metrics.registry.get_sample_value("ctms_background_sync_backlog", {"backend": name}) == 0
        assert metrics.registry.get_sample_value("ctms_background_sync_total", {"backend": name, "status": "done"}) == 0
