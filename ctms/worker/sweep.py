"""Looking for lanes with something to do that have no job: what is due after a wait, or was committed late.

And for jobs that nobody works on any more, whose lanes would stand still.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.outbox.changes import LIVE, RESYNC
from ctms.outbox.lanes import BACKEND, HANDLER, TASK, Lane, wake

# The earliest is one look into the index, however much waits that is not due yet; of contacts, one for each priority.
_DUE = """
    SELECT n FROM unnest(%s::text[]) AS n
    WHERE clock_timestamp() >= {earliest}
    AND NOT EXISTS (
        SELECT FROM receivers r WHERE r.kind = '{kind}' AND r.name = n
        AND (r.paused_at IS NOT NULL OR r.open_until > clock_timestamp()))"""
_EARLIEST = "(SELECT min(t.due_at) FROM outbox t WHERE t.backend = n AND t.priority = {} AND t.parked_at IS NULL)"
_EARLIEST_TASK = "(SELECT min(t.due_at) FROM erasure_tasks t WHERE t.handler = n AND t.parked_at IS NULL)"
_OF_KIND = {
    BACKEND: _DUE.format(kind=BACKEND, earliest=f"least({_EARLIEST.format(LIVE)}, {_EARLIEST.format(RESYNC)})"),
    HANDLER: _DUE.format(kind=HANDLER, earliest=_EARLIEST_TASK),
}

_UNDER_WAY = "SELECT lock FROM procrastinate_jobs WHERE lock = ANY(%s) AND status IN ('todo', 'doing')"

# What such a worker had in hand is due still.
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


def due(connection: Connection, lanes: Sequence[Lane]) -> list[Lane]:
    """Return those of the lanes whose receiver has something to do and may be called."""
    found: list[Lane] = []
    for kind, sql in _OF_KIND.items():
        names = sorted({lane.name for lane in lanes if lane.kind == kind})
        if names:
            busy = {name for (name,) in connection.execute(sql, (names,)).fetchall()}
            found += [lane for lane in lanes if lane.kind == kind and lane.name in busy]
    return found


def sweep(lanes: Sequence[Lane]) -> bool:
    """Defer a job for each lane that needs one; returns whether any has something to do."""
    with pool.acquire() as connection:
        found = due(connection, lanes)
        if found:
            rows = connection.execute(_UNDER_WAY, ([lane.lock for lane in found],)).fetchall()
            under_way = {lock for (lock,) in rows}
            wake(connection, [lane for lane in found if lane.lock not in under_way], now=True)
    return bool(found)


def remove_left_behind(connection: Connection, dead_after: float) -> list[int]:
    """Remove the jobs of workers that have not said for `dead_after` seconds that they live; returns their ids."""
    return [job for (job,) in connection.execute(_LEFT_BEHIND, (TASK, dead_after)).fetchall()]


def jobs_of(connection: Connection, worker: int) -> set[int]:
    """Return the jobs that a worker works on, as the queue has it."""
    return {job for (job,) in connection.execute(_OF_WORKER, (TASK, worker)).fetchall()}


def remove_forgotten(connection: Connection, worker: int, jobs: Collection[int]) -> list[int]:
    """Remove jobs that a worker has done, where it could not tell the queue; returns their ids."""
    return [job for (job,) in connection.execute(_FORGOTTEN, (list(jobs), worker)).fetchall()]
