"""Looking for lanes with something to do that have no job: what is due after a wait, or was committed late."""

from __future__ import annotations

from collections.abc import Sequence

from ctms.outbox.lanes import BACKEND, HANDLER, Lane, wake
from ctms.pool import Connection, lend

_DUE = """
    SELECT n FROM unnest(%s::text[]) AS n
    WHERE EXISTS (
        SELECT FROM {table} t WHERE t.{name} = n AND t.parked_at IS NULL AND t.due_at <= clock_timestamp())
    AND NOT EXISTS (
        SELECT FROM receivers r WHERE r.kind = '{kind}' AND r.name = n
        AND (r.paused_at IS NOT NULL OR r.open_until > clock_timestamp()))"""
_OF_KIND = {
    BACKEND: _DUE.format(kind=BACKEND, table="outbox", name="backend"),
    HANDLER: _DUE.format(kind=HANDLER, table="erasure_tasks", name="handler"),
}

_UNDER_WAY = "SELECT lock FROM procrastinate_jobs WHERE lock = ANY(%s) AND status IN ('todo', 'doing')"


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
    with lend() as connection:
        found = due(connection, lanes)
        if found:
            rows = connection.execute(_UNDER_WAY, ([lane.lock for lane in found],)).fetchall()
            under_way = {lock for (lock,) in rows}
            wake(connection, [lane for lane in found if lane.lock not in under_way], now=True)
    return bool(found)
