"""Procrastinate jobs: deferred for lanes with due entries, and removed if they are those of dead workers.

The lanes of a dead worker's jobs would stay blocked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from psycopg.types.json import Json

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.export import requests as exports
from ctms.outbox.lanes import ACCESS, EXPORT, QUEUES, TASK, Lane
from ctms.subject_access.copies import is_due
from ctms.sync.due import find_due

# Two workers that look at the same time may both defer a job: the second one finds nothing to do.
_DEFER = """
    SELECT procrastinate_defer_jobs_v1(array_agg(
        ROW(l.queue, %s, 0, l.lock, NULL, l.lane, clock_timestamp())::procrastinate_job_to_defer_v1))
    FROM unnest(%s::text[], %s::text[], %s::json[]) AS l (queue, lock, lane)
    WHERE NOT EXISTS (SELECT FROM procrastinate_jobs j WHERE j.lock = l.lock AND j.status IN ('todo', 'doing'))
    HAVING count(*) > 0"""

# The entries of such a worker's batches are still due.
_LEFT_BEHIND = """
    DELETE FROM procrastinate_jobs j
    WHERE j.task_name = %s AND j.status = 'doing' AND NOT EXISTS (
        SELECT FROM procrastinate_workers w
        WHERE w.id = j.worker_id AND w.last_heartbeat > clock_timestamp() - make_interval(secs => %s))
    RETURNING j.id"""
_OF_WORKER = """
    SELECT id FROM procrastinate_jobs WHERE task_name = %s AND status = 'doing' AND worker_id = %s"""
_FORGOTTEN = """
    DELETE FROM procrastinate_jobs WHERE id = ANY(%s) AND status = 'doing' AND worker_id = %s RETURNING id"""


def defer_due_lanes(lanes: Sequence[Lane]) -> bool:
    """Defer a job for each lane that has due entries and no job; return whether any lane has due entries."""
    with pool.acquire() as connection:
        found = find_due(connection, lanes)
        found += [lane for lane in lanes if lane.kind == ACCESS and is_due(connection)]
        found += [lane for lane in lanes if lane.kind == EXPORT and exports.is_due(connection)]
        if found:
            queues, locks = [QUEUES[lane.kind] for lane in found], [lane.lock for lane in found]
            connection.execute(_DEFER, (TASK, queues, locks, [Json(lane._asdict()) for lane in found]))
    return bool(found)


def remove_jobs_of_dead_workers(connection: Connection, dead_after: float) -> list[int]:
    """Remove the jobs of workers without a heartbeat for `dead_after` seconds; return their ids."""
    return [job for (job,) in connection.execute(_LEFT_BEHIND, (TASK, dead_after)).fetchall()]


def jobs_of(connection: Connection, worker: int) -> set[int]:
    """Return the jobs that a worker runs, according to the queue."""
    return {job for (job,) in connection.execute(_OF_WORKER, (TASK, worker)).fetchall()}


def remove_unreported_jobs(connection: Connection, worker: int, jobs: Collection[int]) -> list[int]:
    """Remove jobs that a worker has finished without being able to report it to the queue; return their ids."""
    return [job for (job,) in connection.execute(_FORGOTTEN, (list(jobs), worker)).fetchall()]
