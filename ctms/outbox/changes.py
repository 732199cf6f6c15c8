"""Adding changed contacts to the outbox, in the transaction that changes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import cache
from uuid import UUID

from flask import Flask

from ctms.current import extension
from ctms.database.pool import Connection
from ctms.hooks.plugin import Registered
from ctms.hooks.receivers import Backend
from ctms.outbox.lanes import BACKEND, Lane, lanes_of, notify, notify_statement
from ctms.outbox.models import OutboxEntry

LIVE = 0
"""The priority of an edit."""

RESYNC = -1
"""The priority of a resync: edits come first."""

# An edit raises a lower priority, never the other way round. A parked contact has changed, so it may be pushed now; a
# pending one keeps its place, however often it is edited. Versions are microseconds since 1970: a row that is deleted
# and inserted again has a different one.
CHANGED = f"""
    INSERT INTO {OutboxEntry.__tablename__} AS o
        (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
    SELECT b, c, (extract(epoch FROM now) * 1000000)::bigint, %(priority)s, now, now, 0, 0
    FROM clock_timestamp() AS now, unnest(%(backends)s::text[]) AS b, {{contacts}} AS f (c) ORDER BY b, c
    ON CONFLICT (backend, email_id) DO UPDATE SET
        version = greatest(o.version + 1, excluded.version), priority = greatest(o.priority, excluded.priority),
        due_at = CASE WHEN o.parked_at IS NULL THEN least(o.due_at, excluded.due_at) ELSE excluded.due_at END,
        waiting_since = CASE WHEN o.parked_at IS NULL THEN o.waiting_since ELSE excluded.waiting_since END,
        attempts = 0, failures = 0, parked_at = NULL, reason = NULL"""
"""The statement that adds contacts to the outbox; `{contacts}` is a query for their ids."""


@cache
def _changed(lanes: tuple[Lane, ...]) -> str:
    """Return the single statement that a request sends: it adds the contacts to the outbox, and notifies the lanes."""
    return f"""
        WITH changed AS ({CHANGED.format(contacts="unnest(%(email_ids)s::uuid[])")})
        {notify_statement(lanes)}"""


class Outbox:
    """The backends that receive changes."""

    def __init__(self, registered: Sequence[Registered[Backend]]) -> None:
        self.backends = {one.value.name: one.value for one in registered}
        self.names = list(self.backends)
        self._lanes = {name: lanes_of(BACKEND, backend) for name, backend in self.backends.items()}

    def changed(
        self,
        connection: Connection,
        email_ids: Collection[UUID],
        *,
        priority: int = LIVE,
        backends: Iterable[str] | None = None,
    ) -> None:
        """Add changed or deleted contacts to the outbox, for all backends or those named."""
        names = self.names if backends is None else list(backends)
        if names and email_ids:
            values = {"priority": priority, "backends": names, "email_ids": list(email_ids)}
            connection.execute(_changed(tuple(self.lanes(names))), values)

    def notify(self, connection: Connection, names: Iterable[str], *, now: bool = False) -> None:
        """Notify the lanes of those of these backends that are registered, in a second or `now`."""
        notify(connection, self.lanes(name for name in names if name in self.backends), now=now)

    def lanes(self, names: Iterable[str] | None = None) -> list[Lane]:
        """Return the lanes of the backends, or of those named."""
        return [lane for name in (self.names if names is None else names) for lane in self._lanes[name]]


def init_outbox(app: Flask, registered: Sequence[Registered[Backend]]) -> None:
    """Create the outbox of the app for its backends."""
    app.extensions["ctms.outbox"] = Outbox(registered)


def outbox() -> Outbox:
    """Return the outbox of the current app."""
    found: Outbox = extension("ctms.outbox")
    return found
