"""Adding changed contacts to the outbox, in the transaction that changes them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from uuid import UUID

from flask import Flask

from ctms.current import extension
from ctms.database.pool import Connection
from ctms.hooks.plugin import Registered
from ctms.hooks.receivers import Backend
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

CHANGED_BY_ID = CHANGED.format(contacts="unnest(%(email_ids)s::uuid[])")
"""The statement for contacts whose ids are given as `email_ids`."""


class Outbox:
    """The backends that receive changes."""

    def __init__(self, registered: Sequence[Registered[Backend]]) -> None:
        self.backends = {one.value.name: one.value for one in registered}
        self.names = list(self.backends)

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
            connection.execute(CHANGED_BY_ID, values)


def init_outbox(app: Flask, registered: Sequence[Registered[Backend]]) -> None:
    """Create the outbox of the app for its backends."""
    app.extensions["ctms.outbox"] = Outbox(registered)


def outbox() -> Outbox:
    """Return the outbox of the current app."""
    found: Outbox = extension("ctms.outbox")
    return found
