"""The records of exports over the API."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.export.models import Export

PENDING, RUNNING, READY, FAILED, EXPIRED = "pending", "running", "ready", "failed", "expired"
STATUSES = (PENDING, RUNNING, READY, FAILED, EXPIRED)
"""It waits for a worker; a worker runs it; its files can be downloaded; it failed; its files are deleted."""

MAX_ATTEMPTS = 3
"""An export that several workers did not survive is not tried again."""

MAX_PER_CLIENT = 30
"""Number of exports of a requester that may wait, run or have files: one an hour, and a few more."""

_EXPORTS = Export.__tablename__

_INSERT = f"""
    INSERT INTO {_EXPORTS} (id, requested_at, requested_by, format, request)
    VALUES (%s, clock_timestamp(), %s, %s, %s::json)"""
_IS_EXPIRED = "x.finished_at IS NOT NULL AND x.expires_at <= statement_timestamp()"
_LOCK_REQUESTER = "SELECT pg_advisory_xact_lock(hashtextextended('exports ' || %s, 0))"
_COUNT = f"""
    SELECT count(*) FROM {_EXPORTS} x
    WHERE x.requested_by = %s AND x.request IS NOT NULL AND x.problem IS NULL AND NOT ({_IS_EXPIRED})"""
_RECORD = f"""
    SELECT json_build_object(
        'id', x.id, 'requested_at', {timestamp("x.requested_at")}, 'requested_by', x.requested_by, 'format', x.format,
        'started_at', {timestamp("x.started_at")}, 'finished_at', {timestamp("x.finished_at")},
        'expires_at', {timestamp("x.expires_at")}, 'contacts', x.contacts, 'problem', x.problem,
        'status', CASE
            WHEN x.problem IS NOT NULL THEN '{FAILED}'
            WHEN {_IS_EXPIRED} THEN '{EXPIRED}'
            WHEN x.finished_at IS NOT NULL THEN '{READY}'
            WHEN x.started_at IS NOT NULL THEN '{RUNNING}'
            ELSE '{PENDING}' END),
        CASE WHEN NOT ({_IS_EXPIRED}) THEN x.manifest END,
        extract(epoch FROM x.expires_at - statement_timestamp())::float8
    FROM {_EXPORTS} x WHERE x.id = %s"""
_DUE = f"SELECT EXISTS (SELECT FROM {_EXPORTS} WHERE finished_at IS NULL)"
_BEGIN = f"""
    UPDATE {_EXPORTS} SET started_at = clock_timestamp(), attempts = attempts + 1
    WHERE id = (SELECT id FROM {_EXPORTS} WHERE finished_at IS NULL ORDER BY requested_at LIMIT 1)
    RETURNING id, attempts, request"""
_RELEASE = f"UPDATE {_EXPORTS} SET started_at = NULL, attempts = attempts - 1 WHERE id = %s"
_FINISH = f"""
    UPDATE {_EXPORTS} SET finished_at = now, expires_at = now + make_interval(hours => %s),
        contacts = %s, manifest = %s::json, problem = %s
    FROM clock_timestamp() AS now WHERE id = %s AND finished_at IS NULL RETURNING id"""
_IS_UNFINISHED = f"SELECT EXISTS (SELECT FROM {_EXPORTS} WHERE id = %s AND finished_at IS NULL)"
_END = f"""
    WITH before AS (SELECT id, finished_at FROM {_EXPORTS} WHERE id = %s FOR UPDATE)
    UPDATE {_EXPORTS} x SET request = NULL, manifest = NULL, finished_at = coalesce(x.finished_at, now),
        expires_at = least(x.expires_at, now)
    FROM before, clock_timestamp() AS now WHERE x.id = before.id
    RETURNING before.finished_at IS NOT NULL"""
_FORGET_EXPIRED = f"""
    UPDATE {_EXPORTS} x SET request = NULL, manifest = NULL WHERE x.request IS NOT NULL AND {_IS_EXPIRED}"""
_STORED = f"SELECT x.id FROM {_EXPORTS} x WHERE x.id = ANY(%s) AND x.problem IS NULL AND NOT ({_IS_EXPIRED})"


class BegunExport(NamedTuple):
    """An export that a worker has begun."""

    id: UUID
    attempts: int
    request: Mapping[str, Any]


class ExportRecord(NamedTuple):
    """The record of an export, and while its files are stored their manifest, and the seconds until it expires."""

    record: dict[str, Any]
    manifest: Mapping[str, Any] | None
    seconds_left: float | None


def add(connection: Connection, request: Mapping[str, Any], *, by: str) -> UUID | None:
    """Record the request for an export; return its id, or None if the requester has `MAX_PER_CLIENT`."""
    connection.execute(_LOCK_REQUESTER, (by,))  # two requests at once would both find the last place
    row = connection.execute(_COUNT, (by,)).fetchone()
    if row is None or row[0] >= MAX_PER_CLIENT:
        return None
    export_id = uuid.uuid4()
    connection.execute(_INSERT, (export_id, by, request["format"], json.dumps(request)))
    return export_id


def find(connection: Connection, export_id: UUID) -> ExportRecord | None:
    """Return an export, if there is one."""
    row = connection.execute(_RECORD, (export_id,)).fetchone()
    return None if row is None else ExportRecord(*row)


def is_due(connection: Connection) -> bool:
    """Return whether an export is not finished."""
    row = connection.execute(_DUE).fetchone()
    return row is not None and bool(row[0])


def begin(connection: Connection) -> BegunExport | None:
    """Return the oldest unfinished export, as begun."""
    row = connection.execute(_BEGIN).fetchone()
    return None if row is None else BegunExport(*row)


def release(connection: Connection, export_id: UUID) -> None:
    """Leave an export to the next worker."""
    connection.execute(_RELEASE, (export_id,))


def is_unfinished(connection: Connection, export_id: UUID) -> bool:
    """Return whether the export waits or runs; it does not after `end`."""
    row = connection.execute(_IS_UNFINISHED, (export_id,)).fetchone()
    return row is not None and bool(row[0])


def end(connection: Connection, export_id: UUID) -> bool | None:
    """End an export, which then is expired, unless it had failed.

    Return whether it was finished, so that no worker writes its files; None if there is none.
    """
    row = connection.execute(_END, (export_id,)).fetchone()
    return None if row is None else bool(row[0])


def finish(connection: Connection, export_id: UUID, manifest: Mapping[str, Any], hours: int) -> bool:
    """Record that the files are whole; they are stored for some hours. Return False if the export was ended."""
    values = (hours, manifest["contacts"], json.dumps(manifest), None, export_id)
    return connection.execute(_FINISH, values).fetchone() is not None


def fail(connection: Connection, export_id: UUID, problem: str) -> bool:
    """Record that an export failed, and why. Return False if it was ended."""
    return connection.execute(_FINISH, (0, None, None, problem, export_id)).fetchone() is not None


def forget_expired(connection: Connection) -> None:
    """Delete what was asked for by exports whose time is over."""
    connection.execute(_FORGET_EXPIRED)


def find_stored(connection: Connection, export_ids: list[UUID]) -> set[UUID]:
    """Return those of the exports whose files are needed."""
    return {found for (found,) in connection.execute(_STORED, (export_ids,)).fetchall()}
