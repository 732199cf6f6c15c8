"""The lanes of backends and deletion handlers.

A lane is a sequence of calls of a backend or deletion handler that never overlap. A contact always uses the same lane,
so its pushes keep their order. A job only names a lane; pending work is stored in tables, so that edits merge and
batches fill.
"""

from __future__ import annotations

from typing import NamedTuple

from ctms.hooks.receivers import Backend, DeletionHandler

BACKEND = "backend"
HANDLER = "deletion_handler"
ACCESS = "access_request"
"""The kind of the lane that reads backends' copies for access requests."""

EXPORT = "export"
"""The kind of the lane that runs exports."""

TASK = "ctms.drain"
"""The name of the task that drains a lane."""

QUEUES = {BACKEND: "backends", HANDLER: "erasures", ACCESS: "backends", EXPORT: "exports"}
"""The Procrastinate queue of each kind of lane: a worker may serve only some queues."""


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
