"""Lanes with due entries."""

from __future__ import annotations

from collections.abc import Sequence

from ctms.database.pool import Connection
from ctms.outbox.changes import LIVE, RESYNC
from ctms.outbox.lanes import BACKEND, HANDLER, Lane

# The earliest entry takes one index look-up, however many entries are not due yet; for contacts, one per priority.
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


def find_due(connection: Connection, lanes: Sequence[Lane]) -> list[Lane]:
    """Return those of the lanes that have due entries and whose receiver may be called."""
    found: list[Lane] = []
    for kind, sql in _OF_KIND.items():
        names = sorted({lane.name for lane in lanes if lane.kind == kind})
        if names:
            busy = {name for (name,) in connection.execute(sql, (names,)).fetchall()}
            found += [lane for lane in lanes if lane.kind == kind and lane.name in busy]
    return found
