"""The maintenance jobs of the worker: one run at a time, errors that stop nothing, a stop between two jobs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.database.pool import Connection
from ctms.worker import housekeeping
from ctms.worker import service as service_module
from ctms.worker.housekeeping import HousekeepingJob, run_jobs
from ctms.worker.service import BackgroundService, WorkerOptions


def failing(error: Exception) -> Callable[[Connection, Event], None]:
    def run(*_: object) -> None:
        raise error

    return run


def test_every_job_runs_in_order_after_failures(app: Flask, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ARG001
    ran: list[str] = []
    jobs = [
        HousekeepingJob("first", lambda *_: ran.append("first")),
        HousekeepingJob("broken", failing(ValueError("secret"))),
        HousekeepingJob("offline", failing(psycopg.OperationalError("secret"))),
        HousekeepingJob("last", lambda *_: ran.append("last")),
    ]

    failed: list[str] = []

    with caplog.at_level(logging.WARNING):
        run_jobs(Event(), jobs, failed.append)

    assert ran == ["first", "last"]
    assert failed == ["broken", "offline"]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "housekeeping job broken failed, and will be repeated: ValueError"),
        ("WARNING", "housekeeping job offline failed, and will be repeated: OperationalError"),
    ]


def test_a_failed_statement_is_logged_and_its_lock_released(
    migrated_app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []

    with migrated_app.app_context(), caplog.at_level(logging.ERROR):
        run_jobs(
            Event(), [HousekeepingJob("a", lambda connection, _: connection.execute("SELECT * FROM missing_table"))]
        )
        run_jobs(Event(), [HousekeepingJob("a", lambda *_: ran.append("again"))])

    assert ran == ["again"]
    assert 'UndefinedTable: relation "missing_table" does not exist' in caplog.text


def _in_context(app: Flask, *jobs: HousekeepingJob) -> None:
    with app.app_context():
        run_jobs(Event(), jobs)


def test_a_stop_is_passed_to_the_job_and_ends_the_run(app: Flask) -> None:  # noqa: ARG001
    ran: list[str] = []
    stopping = Event()

    def stop(_: Connection, event: Event) -> None:
        assert event is stopping
        event.set()

    run_jobs(stopping, [HousekeepingJob("stops", stop), HousekeepingJob("next", lambda *_: ran.append("next"))])

    assert ran == []


def test_a_job_runs_in_one_worker_at_a_time(migrated_app: Flask) -> None:
    ran: list[str] = []
    runs = Event()
    finish = Event()

    def wait(*_: object) -> None:
        runs.set()
        assert finish.wait(60)
        ran.append("slow")

    slow = Thread(target=_in_context, args=(migrated_app, HousekeepingJob("exclusive", wait)))
    slow.start()
    assert runs.wait(60)
    _in_context(
        migrated_app,
        HousekeepingJob("exclusive", lambda *_: ran.append("twice")),
        HousekeepingJob("x", lambda *_: ran.append("x")),
    )
    finish.set()
    slow.join(60)
    _in_context(migrated_app, HousekeepingJob("exclusive", lambda *_: ran.append("later")))

    assert ran == ["x", "slow", "later"]


def test_the_lock_is_one_of_a_transaction_without_a_snapshot(migrated_app: Flask) -> None:
    found: list[tuple[Any, ...]] = []

    def look(connection: Connection, _: Event) -> None:
        holders = connection.execute("""
            SELECT state, backend_xmin, pid = pg_backend_pid() FROM pg_stat_activity WHERE pid IN (
                SELECT pid FROM pg_locks WHERE locktype = 'advisory'
                    AND classid = (hashtext('ctms housekeeping')::bigint & x'ffffffff'::bigint)::oid)""")
        found.extend(holders.fetchall())

    _in_context(migrated_app, HousekeepingJob("looks", look))

    assert found == [("idle in transaction", None, False)]


def test_the_worker_starts_it_hourly_and_beside_its_heartbeats(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []
    finish = Event()
    now = 0.0
    deadline = time.monotonic() + 60

    class Swept(BackgroundService):
        async def _swept(self) -> bool:
            nonlocal now
            await asyncio.sleep(0.01)
            assert time.monotonic() < deadline
            if len(started) == 1 + now // 3600:  # else it is still to start
                now += 600
            if now == 1800:
                finish.set()  # until now the first run has blocked its thread, and nothing else
            if now == 9000:
                raise asyncio.CancelledError
            return False

    def run(*_: object) -> None:
        started.append(now)
        assert finish.wait(60)

    monkeypatch.setattr(service_module, "SWEEP_EVERY_SECONDS", 0)
    monkeypatch.setattr(service_module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(housekeeping, "run_jobs", run)
    worker: Any = SimpleNamespace(worker_id=None)
    service = Swept(app, WorkerOptions(1))
    monkeypatch.setattr(service, "_recover", lambda _: None)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(service._maintain(worker, asyncio.Event()))

    assert started == [0, 3600, 7200]


def test_a_worker_that_runs_once_does_it_before_it_ends(migrated_app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(housekeeping, "JOBS", [HousekeepingJob("once", lambda *_: ran.append("once"))])

    BackgroundService(migrated_app, WorkerOptions(1, once=True)).run()

    assert ran == ["once"]
