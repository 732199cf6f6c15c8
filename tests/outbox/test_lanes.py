"""A lane with something to do has a job, and few of them."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.hooks.receivers import Backend
from ctms.outbox.lanes import BACKEND, HANDLER, TASK, Lane, lanes_of, notify
from tests.sync.working import OTHER, row, rows

LANES = [Lane(BACKEND, "mail", 0), Lane(BACKEND, "mail", 1), Lane(HANDLER, "mail", 0)]


def woken(*lanes: Lane, now: bool = False) -> int:
    """Wake the lanes; returns how many jobs there are then."""
    with pool.writing() as connection:
        notify(connection, lanes, now=now)
    return int(row("SELECT count(*) FROM procrastinate_jobs"))


def test_a_backend_has_as_many_lanes_as_calls_may_run_at_once() -> None:
    lanes = lanes_of(BACKEND, Backend(name="mail", implementation=OTHER, concurrency=2))

    assert lanes == LANES[:2]
    assert [lane.lock for lane in lanes] == ["backend:mail:0", "backend:mail:1"]


def test_a_job_only_names_a_lane(app: Flask) -> None:  # noqa: ARG001  its transaction
    assert woken(*LANES) == 3

    jobs = rows("SELECT queue_name, task_name, lock, args, status::text FROM procrastinate_jobs ORDER BY lock")
    assert jobs == [
        ("backends", TASK, "backend:mail:0", {"kind": "backend", "name": "mail", "number": 0}, "todo"),
        ("backends", TASK, "backend:mail:1", {"kind": "backend", "name": "mail", "number": 1}, "todo"),
        ("erasures", TASK, "deletion_handler:mail:0", {"kind": HANDLER, "name": "mail", "number": 0}, "todo"),
    ]


def test_no_lane_costs_no_statement() -> None:
    connection: Any = object()
    notify(connection, [])


def test_a_job_begins_in_a_moment_or_now(app: Flask) -> None:  # noqa: ARG001  its transaction
    woken(LANES[0])
    woken(LANES[1], now=True)

    begins = rows("SELECT scheduled_at > clock_timestamp() FROM procrastinate_jobs ORDER BY lock")
    assert begins == [True, False]


@pytest.mark.parametrize(
    ("seconds", "jobs"),
    [
        pytest.param(0.9, 1, id="it has time enough to see what is written"),
        pytest.param(0.25, 2, id="it may begin before the commit"),
        pytest.param(-0.1, 1, id="it waits for its lane or for a worker"),
        pytest.param(-86400, 1, id="no worker has run for a day"),
    ],
)
def test_a_job_that_waits_serves_later_writes(app: Flask, seconds: float, jobs: int) -> None:  # noqa: ARG001
    woken(LANES[0])
    rows("UPDATE procrastinate_jobs SET scheduled_at = clock_timestamp() + make_interval(secs => %s)", seconds)

    assert woken(LANES[0]) == jobs


def test_writes_one_after_another_leave_two_jobs_at_the_most(app: Flask) -> None:  # noqa: ARG001  its transaction
    for _ in range(20):
        most = woken(LANES[0])
        rows("UPDATE procrastinate_jobs SET scheduled_at = scheduled_at - interval '0.3 second'")

    # On a busy machine time passes here too, and the second job may not be needed.
    assert most <= 2


def test_a_running_job_does_not_see_new_writes(app: Flask) -> None:  # noqa: ARG001  its transaction
    woken(LANES[0])
    rows("UPDATE procrastinate_jobs SET status = 'doing'")

    assert woken(LANES[0]) == 2
