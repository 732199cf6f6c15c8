"""Waking those who do the work: a job of Procrastinate for each lane that has something to do.

A lane is what may run at one time of a backend's or deletion handler's calls; a contact always travels in the same
lane, so its pushes keep their order. A job says only which lane; what waits stands in tables, so that edits merge and
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
"""The name of the task that works a lane off."""

QUEUES = {BACKEND: "backends", HANDLER: "erasures"}
"""The queue of Procrastinate for each kind of receiver: workers may be told which ones to serve."""


class Lane(NamedTuple):
    """A lane of a backend or deletion handler."""

    kind: str
    name: str
    number: int

    @property
    def lock(self) -> str:
        """Procrastinate runs one job with this lock at a time, on all machines together."""
        return f"{self.kind}:{self.name}:{self.number}"


def lanes_of(kind: str, receiver: Backend | DeletionHandler) -> list[Lane]:
    """Return the lanes of a backend or deletion handler."""
    return [Lane(kind, receiver.name, number) for number in receiver.lanes]


# A job that waits already, with at least as much time left as this transaction may need to commit, will see what this
# transaction writes. If it takes longer nothing is lost: the workers look for lanes with something to do every second.
# So do they where a job should have begun already: it waits for its lane or for a worker, and more of them would only
# pile up. The jobs wait a moment so that one serves all the writes of that moment; without a lock in the queue (a
# `queueing_lock`), for which writers would wait until the others commit.
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
def waking(lanes: tuple[Lane, ...], *, now: bool = False) -> str:
    """Return the statement that defers a job for each of the lanes that has none waiting.

    The job begins in a second, or `now`, at the commit. The lanes stand in the text, which is quicker than values:
    their names are checked when they are registered (`check_name`).
    """
    values = ", ".join(
        f"('{QUEUES[lane.kind]}', '{lane.lock}', '{lane.kind}', '{lane.name}', {lane.number})" for lane in lanes
    )
    return _WAKING.format(task=TASK, delay=0 if now else _MOMENT_IN_SECONDS, lanes=values)


def wake(connection: Connection, lanes: Iterable[Lane], *, now: bool = False) -> None:
    """Defer, in the transaction of the connection, a job for each lane that has none waiting, as `waking` says."""
    found = tuple(lanes)
    if found:
        connection.execute(waking(found, now=now))
