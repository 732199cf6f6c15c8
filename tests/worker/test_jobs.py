"""Lanes with due entries get a job; jobs of dead workers are removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ctms.database import pool
from ctms.outbox.lanes import BACKEND, HANDLER, TASK, Lane
from ctms.sync.due import find_due
from ctms.testing import ApiClient
from ctms.worker.jobs import defer_due_lanes, jobs_of, remove_jobs_of_dead_workers, remove_unreported_jobs
from tests.sync.working import Worker, row, rows

Make = Callable[[int], list[str]]

LANES = [Lane(BACKEND, "other", 0), Lane(BACKEND, "other", 1), Lane(BACKEND, "else", 0), Lane(HANDLER, "other", 0)]


@pytest.fixture
def waits(make: Make) -> None:
    """A contact that waits for the backend."""
    make(1)


def locks() -> list[str]:
    """Return the lanes that have jobs."""
    return rows("SELECT lock FROM procrastinate_jobs ORDER BY lock")


@pytest.mark.usefixtures("waits")
def test_a_lane_with_due_entries_gets_an_immediate_job() -> None:
    assert defer_due_lanes(LANES)

    jobs = rows(
        "SELECT queue_name, task_name, lock, args, status::text, scheduled_at <= clock_timestamp()"
        " FROM procrastinate_jobs ORDER BY lock"
    )
    assert jobs == [
        ("backends", TASK, "backend:other:0", {"kind": BACKEND, "name": "other", "number": 0}, "todo", True),
        ("backends", TASK, "backend:other:1", {"kind": BACKEND, "name": "other", "number": 1}, "todo", True),
    ]


@pytest.mark.usefixtures("waits")
def test_a_task_of_an_erasure_gets_a_job_of_its_queue(api: ApiClient) -> None:
    api.delete(f"/ctms/{row('SELECT primary_email FROM emails')}")

    assert defer_due_lanes(LANES[-1:])

    assert rows("SELECT queue_name, lock FROM procrastinate_jobs") == [("erasures", "deletion_handler:other:0")]


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("status", ["todo", "doing"])
def test_a_lane_that_has_a_job_gets_no_other(status: str) -> None:
    defer_due_lanes(LANES)
    rows("UPDATE procrastinate_jobs SET status = %s::procrastinate_job_status", status)

    assert defer_due_lanes(LANES)

    assert len(locks()) == 2


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE outbox SET due_at = clock_timestamp() + interval '1 minute'",
        "UPDATE outbox SET parked_at = now()",
        "INSERT INTO receivers (kind, name, failures, paused_at) VALUES ('backend', 'other', 0, now())",
        "INSERT INTO receivers (kind, name, failures, open_until) VALUES ('backend', 'other', 9, 'infinity')",
        "DELETE FROM outbox",
    ],
)
def test_a_lane_without_due_entries_gets_no_job(change: str) -> None:
    rows(change)

    assert not defer_due_lanes(LANES)
    assert locks() == []


@pytest.mark.usefixtures("waits")
def test_a_pause_is_for_the_kind_too() -> None:
    rows("INSERT INTO receivers (kind, name, failures, paused_at) VALUES ('deletion_handler', 'other', 0, now())")

    assert defer_due_lanes(LANES)


@pytest.mark.parametrize("priority", [0, -1])
def test_any_priority_is_due(make: Make, priority: int) -> None:
    make(1)
    rows("UPDATE outbox SET priority = %s", priority)

    with pool.acquire() as connection:
        assert find_due(connection, LANES) == LANES[:2]


def working(ago: float | None) -> tuple[int, int]:
    """Add a worker with a heartbeat `ago` seconds ago, or none, and a job that it runs; return both ids."""
    worker = row(
        "INSERT INTO procrastinate_workers (last_heartbeat)"
        " VALUES (clock_timestamp() - make_interval(secs => %s)) RETURNING id",
        ago or 0,
    )
    job = row(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, lock, status, worker_id)"
        " VALUES ('backends', %s, gen_random_uuid()::text, 'doing', %s) RETURNING id",
        TASK,
        None if ago is None else worker,
    )
    return worker, job


def test_the_jobs_of_dead_workers_go(worker: Worker) -> None:  # noqa: ARG001  inside its transaction
    _, alive = working(2)
    _, dead = working(20)
    _, unknown = working(None)

    with pool.acquire() as connection:
        assert sorted(remove_jobs_of_dead_workers(connection, 15)) == [dead, unknown]
        assert remove_jobs_of_dead_workers(connection, 15) == []

    assert rows("SELECT id FROM procrastinate_jobs") == [alive]


def test_a_worker_removes_its_own_jobs_only(worker: Worker) -> None:  # noqa: ARG001  inside its transaction
    mine, job = working(0)
    _, other = working(0)

    with pool.acquire() as connection:
        assert jobs_of(connection, mine) == {job}
        assert remove_unreported_jobs(connection, mine, [job, other]) == [job]
        assert jobs_of(connection, mine) == set()

    assert rows("SELECT id FROM procrastinate_jobs") == [other]
