"""Notifying workers: a Procrastinate job for each lane with due entries.

A lane is a sequence of calls of a backend or deletion handler that never overlap; a contact always uses the same lane,
so its pushes keep their order. A job only names a lane; pending work is stored in tables, so that edits merge and
batches fill.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from ctms.database.pool import Connection
from ctms.hooks.receivers import Backend, DeletionHandler

BACKEND = "backend"
HANDLER = "deletion_handler"

TASK = "ctms.drain"
"""The name of the task that drains a lane."""

QUEUES = {BACKEND: "backends", HANDLER: "erasures"}
"""The Procrastinate queue of each kind of receiver: a worker may serve only some queues."""


class Lane(NamedTuple):
    """A lane of a backend or deletion handler."""

    kind: str
    name: str
    number: int

    @property
    def lock(self) -> str:
        """The job's lock: Procrastinate runs one job with it at a time, on all machines together."""
        return f"{self.kind}:{self.name}:{self.number}"


def lanes_of(kind: str, receiver: Backend | DeletionHandler) -> list[Lane]:
    """Return the lanes of a backend or deletion handler."""
    return [Lane(kind, receiver.name, number) for number in receiver.lanes]


# A pending job with at least as much time left as this transaction may need to commit will see what this transaction
# writes. If the commit takes longer nothing is lost: the workers poll for lanes with due entries every second. So do
# they if a job should have begun already: it waits for its lane or for a worker, and more jobs would only pile up. Jobs
# are delayed, so that one serves all writes of that moment; they have no lock in the queue (a `queueing_lock`), for
# which writers would wait until others commit.
_WAKING = """
    SELECT procrastinate_defer_jobs_v1(array_agg(
        ROW(l.queue, '{task}', 0, l.lock, NULL, json_build_object('kind', l.kind, 'name', l.name, 'number', l.number),
            clock_timestamp() + interval '{delay} second')::procrastinate_job_to_defer_v1))
    FROM (VALUES {lanes}) AS l (queue, lock, kind, name, number)
    WHERE NOT EXISTS (
        SELECT FROM procrastinate_jobs j
        WHERE j.lock = l.lock AND j.status = 'todo'
        AND j.scheduled_at NOT BETWEEN clock_timestamp() AND clock_timestamp() + interval '0.5 second')
    HAVING count(*) > 0"""

_MOMENT_IN_SECONDS = 1


@cache
def notify_statement(lanes: tuple[Lane, ...], *, now: bool = False) -> str:
    """Return the statement that defers a job for each of the lanes without a pending one.

    The job begins in a second, or `now`, at the commit. The lanes are part of the statement's text, which is faster
    than parameters: their names are validated on registration (`check_name`).
    """
    values = ", ".join(
        f"('{QUEUES[lane.kind]}', '{lane.lock}', '{lane.kind}', '{lane.name}', {lane.number})" for lane in lanes
    )
    return _WAKING.format(task=TASK, delay=0 if now else _MOMENT_IN_SECONDS, lanes=values)


def notify(connection: Connection, lanes: Iterable[Lane], *, now: bool = False) -> None:
    """Defer a job for each lane without a pending one, in the transaction of the connection."""
    found = tuple(lanes)
    if found:
        connection.execute(notify_statement(found, now=now))
