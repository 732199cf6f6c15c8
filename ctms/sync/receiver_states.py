"""The states of backends and deletion handlers; pause and resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ctms.database.pool import Connection
from ctms.hooks.manager import app_plugins
from ctms.hooks.receivers import Backend, DeletionHandler
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.sync.synchronised import find_unsynchronised

HOOKS = {BACKEND: "ctms_backends", HANDLER: "ctms_deletion_handlers"}

WORDS = {BACKEND: "backend", HANDLER: "deletion handler"}
"""The names of the kinds in messages."""

MAX_FAILURES_ALONE = 5
"""Number of exceptions that a contact may cause alone before it is parked."""

_COUNT = """
    SELECT '{kind}' AS kind, {name} AS name, count(*) FILTER (WHERE parked_at IS NULL) AS waiting,
        count(*) FILTER (WHERE parked_at IS NULL AND attempts > 0) AS retrying,
        count(*) FILTER (WHERE parked_at IS NOT NULL) AS parked,
        min(waiting_since) FILTER (WHERE parked_at IS NULL) AS waiting_since
    FROM {table} GROUP BY {name}"""
_COUNTS = " UNION ALL ".join(
    _COUNT.format(kind=kind, table=table, name=name)
    for kind, table, name in ((BACKEND, "outbox", "backend"), (HANDLER, "erasure_tasks", "handler"))
)
_WAITING = f"""
    SELECT name, waiting, retrying, parked, extract(epoch FROM clock_timestamp() - waiting_since)::float8
    FROM ({_COUNTS}) c WHERE kind = %s AND name = ANY(%s)"""
_EXISTS = {
    BACKEND: "SELECT FROM outbox WHERE backend = %s LIMIT 1",
    HANDLER: "SELECT FROM erasure_tasks WHERE handler = %s LIMIT 1",
}
_STATES = """
    SELECT kind, name, paused_at, paused_why, failures,
        CASE WHEN open_until > clock_timestamp() THEN open_until END AS resting_until, last_success_at,
        last_error, last_error_at, synchronised_at
    FROM receivers"""

_PAUSE = """
    INSERT INTO receivers AS r (kind, name, failures, paused_at, paused_why)
    VALUES (%s, %s, 0, clock_timestamp(), %s)
    ON CONFLICT (kind, name) DO UPDATE SET
        paused_at = coalesce(r.paused_at, excluded.paused_at),
        paused_why = coalesce(excluded.paused_why, r.paused_why)"""
_RESUME = """
    UPDATE receivers SET paused_at = NULL, paused_why = NULL, failures = 0, open_until = NULL
    WHERE kind = %s AND name = %s AND (paused_at IS NOT NULL OR failures > 0 OR open_until IS NOT NULL)"""

# A single index entry shows whether anything is pending.
_TROUBLES = f"""
    SELECT k.kind, k.name, r.paused_at IS NOT NULL, coalesce(r.failures, 0),
        CASE WHEN r.open_until > clock_timestamp() + interval '1 minute' THEN r.open_until END,
        CASE k.kind
            WHEN '{BACKEND}' THEN EXISTS (SELECT FROM outbox WHERE backend = k.name AND parked_at IS NOT NULL)
            ELSE EXISTS (SELECT FROM erasure_tasks WHERE handler = k.name AND parked_at IS NOT NULL) END,
        CASE k.kind
            WHEN '{BACKEND}' THEN (SELECT min(waiting_since) FROM outbox WHERE backend = k.name AND parked_at IS NULL)
            ELSE (SELECT min(waiting_since) FROM erasure_tasks WHERE handler = k.name AND parked_at IS NULL)
        END < clock_timestamp() - interval '5 minutes' AND NOT EXISTS (
            SELECT FROM procrastinate_workers WHERE last_heartbeat > clock_timestamp() - interval '1 minute')
    FROM unnest(%s::text[], %s::text[]) AS k (kind, name) LEFT JOIN receivers r USING (kind, name)
    ORDER BY k.kind, k.name"""


@dataclass(frozen=True)
class State:
    """The state of a backend or deletion handler.

    `max_batch` is None if no plugin registers it any more. `resting_until` is the end of the open breaker's cool-down,
    or of a requested pause; `failures` are consecutive failures. Since `synchronised_at` a backend has received every
    contact; None if it has not, or if this is unknown.
    """

    kind: str
    name: str
    max_batch: int | None
    paused_at: datetime | None = None
    paused_why: str | None = None
    failures: int = 0
    resting_until: datetime | None = None
    last_success_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    synchronised_at: datetime | None = None

    @property
    def state(self) -> str:
        """The state in one word: `not installed`, `paused`, `resting`, `failing` or `ok`."""
        if self.max_batch is None:
            return "not installed"
        if self.paused_at:
            return "paused"
        if self.resting_until:
            return "resting"
        return "failing" if self.failures >= failure_threshold(self.max_batch) else "ok"


@dataclass(frozen=True)
class Status(State):
    """The state with its pending work: `waiting` contacts, of which `retrying` were tried before, and `parked` ones.

    `never_synchronised` is true of a backend that never received the contacts from before its plugin.
    """

    waiting: int = 0
    retrying: int = 0
    parked: int = 0
    waiting_since: datetime | None = None
    never_synchronised: bool = False


def failure_threshold(max_batch: int) -> int:
    """Return how many consecutive failures open the breaker: more than one bad contact in a batch causes.

    Bisecting the batch isolates it, and `MAX_FAILURES_ALONE` parks it.
    """
    return max_batch.bit_length() + MAX_FAILURES_ALONE


def registered(kind: str) -> dict[str, Backend | DeletionHandler]:
    """Return the backends or deletion handlers of the app by name."""
    return {one.value.name: one.value for one in app_plugins().collect(HOOKS[kind])}


def statuses(connection: Connection) -> list[Status]:
    """Return the status of each receiver: registered ones, and those that only the tables know."""
    with connection.transaction():
        connection.execute("SET LOCAL statement_timeout = 0")  # counting a large backlog takes long
        waiting = _by_key(connection, _COUNTS)
        states = _by_key(connection, _STATES)
        never = {(BACKEND, name) for name in find_unsynchronised(connection, registered(BACKEND))}
    there = {(kind, name): one.max_batch for kind in HOOKS for name, one in registered(kind).items()}
    return [
        Status(
            kind,
            name,
            there.get((kind, name)),
            never_synchronised=(kind, name) in never,
            **waiting.get((kind, name), {}),
            **states.get((kind, name), {}),
        )
        for kind, name in sorted({*there, *waiting, *states})
    ]


def count_waiting(connection: Connection, kind: str, names: Sequence[str]) -> list[tuple[str, int, int, int, float]]:
    """Return the pending work by name: waiting, retrying and parked contacts, and the age of the oldest one."""
    return connection.execute(_WAITING, (kind, names)).fetchall() if names else []


def _by_key(connection: Connection, sql: str, values: Sequence[Any] = ()) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows of a query by kind and name, with the names of the other columns."""
    cursor = connection.execute(sql, values)
    columns = [column.name for column in cursor.description or ()][2:]
    return {(kind, name): dict(zip(columns, others, strict=True)) for kind, name, *others in cursor.fetchall()}


def state(connection: Connection, kind: str, name: str) -> State | None:
    """Return the state of a receiver without its pending work, or None if neither a plugin nor a table knows it."""
    found = _by_key(connection, f"{_STATES} WHERE kind = %s AND name = %s", (kind, name)).get((kind, name))
    one = registered(kind).get(name)
    if one is None and found is None:
        waits = connection.execute(_EXISTS[kind], (name,)).fetchone()
        if waits is None:
            return None
    return State(kind, name, one.max_batch if one else None, **(found or {}))


def pause(connection: Connection, kind: str, name: str, why: str | None) -> None:
    """Stop calling it until it is resumed; the batches in flight are finished. Pending work is kept."""
    connection.execute(_PAUSE, (kind, name, why))


def resume(connection: Connection, kind: str, name: str) -> bool:
    """Call it again immediately, even if the breaker is open; return False if it was called anyway."""
    return connection.execute(_RESUME, (kind, name)).rowcount > 0


def problems_of_receivers(connection: Connection) -> list[str]:
    """Describe problems of registered receivers, with one query, however much is pending."""
    there = {(kind, name): one.max_batch for kind in HOOKS for name, one in registered(kind).items()}
    if not there:
        return []
    rows = connection.execute(_TROUBLES, ([kind for kind, _ in there], [name for _, name in there])).fetchall()
    found = ((kind, name, list(_told(row, failure_threshold(there[kind, name])))) for kind, name, *row in rows)
    return [f"{WORDS[kind]} {name} {' and '.join(said)}" for kind, name, said in found if said]


def _told(row: Sequence[Any], most: int) -> Iterator[str]:
    paused, failures, resting, parked, left = row
    if paused:
        yield "is paused"
    elif failures >= most:
        yield f"failed {failures} times in a row"
    elif resting:
        yield f"rests until {resting:%Y-%m-%d %H:%M:%S %Z}"
    if parked:
        yield "has parked contacts"
    if left and not paused:
        yield "is not served, since no background service runs"
