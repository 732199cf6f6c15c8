"""The audit log: who did what, and when. Entries are added by the transaction of the act, and never change.

An entry has no personal data: neither addresses nor ids of contacts, and no text that operators write.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, NamedTuple

from ctms.database.pool import Connection
from ctms.history.models import AuditEntry

_ADD = f"INSERT INTO {AuditEntry.__tablename__} (actor, action, target, details) VALUES (%s, %s, %s, %s)"

# An action is a command: `clients` also selects `clients create`.
_FIND = f"""
    SELECT recorded_at, actor, action, target, details FROM {AuditEntry.__tablename__}
    WHERE (%(actor)s::text IS NULL OR actor = %(actor)s)
      AND (%(action)s::text IS NULL OR action = %(action)s OR starts_with(action, %(action)s || ' '))
      AND (%(target)s::text IS NULL OR target = %(target)s)
      AND (%(since)s::timestamptz IS NULL OR recorded_at >= %(since)s)
    ORDER BY id DESC LIMIT %(limit)s"""


class AdministrativeAct(NamedTuple):
    """An entry of the log."""

    recorded_at: datetime
    actor: str
    action: str
    target: str | None
    details: dict[str, Any]


class AuditFilter(NamedTuple):
    """The entries to find: None selects all. `action` is a command or a group of commands."""

    actor: str | None = None
    action: str | None = None
    target: str | None = None
    since: datetime | None = None


def record_act(connection: Connection, actor: str, action: str, target: str | None, **details: Any) -> None:
    """Add an entry in the transaction of the act. `target` is the name or id of what it changes."""
    connection.execute(_ADD, (actor, action, target, json.dumps(details)))


def find_acts(connection: Connection, selected: AuditFilter, limit: int) -> list[AdministrativeAct]:
    """Return the newest entries first."""
    rows = connection.execute(_FIND, {**selected._asdict(), "limit": limit}).fetchall()
    return [AdministrativeAct(*row) for row in rows]
