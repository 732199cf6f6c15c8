"""The records of access requests, which name nobody, and their stored reports."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.subject_access.models import AccessRequest, AccessRequestContact, AccessRequestCopy
from ctms.subject_access.personal_data import PersonalData

ORIGIN_API = "api"
ORIGIN_COMMAND = "command"

READY, PENDING, EXPIRED = "ready", "pending", "expired"
STATUSES = (READY, PENDING, EXPIRED)
"""The report is complete; copies of backends are to be read; the report is no longer stored, or never was."""

_REQUESTS, _CONTACTS, _COPIES = (
    model.__tablename__ for model in (AccessRequest, AccessRequestContact, AccessRequestCopy)
)

_INSERT = f"""
    INSERT INTO {_REQUESTS}
        (id, requested_at, requested_by, origin, contacts, copies, failed, expires_at, result)
    SELECT %s, now, %s, %s, %s, %s, %s, now + make_interval(days => %s), %s::json FROM clock_timestamp() AS now"""
_INSERT_CONTACTS = f"""
    INSERT INTO {_CONTACTS} (request_id, email_id, position, content)
    SELECT %s, f.email_id, f.position, f.content::json
    FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS f (email_id, content, position)"""
_INSERT_COPIES = f"""
    INSERT INTO {_COPIES} (request_id, email_id, backend, content)
    SELECT %s, email_id, b.backend, b.content::json
    FROM unnest(%s::uuid[]) AS email_id, unnest(%s::text[], %s::text[]) AS b (backend, content)"""

_IS_STORED = "r.result IS NOT NULL AND r.expires_at > statement_timestamp()"
_RECORD = f"""
    SELECT json_build_object(
        'id', r.id, 'requested_at', {timestamp("r.requested_at")}, 'requested_by', r.requested_by,
        'origin', r.origin, 'contacts', r.contacts, 'copies', r.copies, 'failed', r.failed,
        'expires_at', {timestamp("r.expires_at")},
        'status', CASE
            WHEN NOT ({_IS_STORED}) THEN '{EXPIRED}'
            WHEN EXISTS (SELECT FROM {_COPIES} k WHERE k.request_id = r.id AND k.content IS NULL) THEN '{PENDING}'
            ELSE '{READY}' END)::text,
        CASE WHEN {_IS_STORED} THEN r.result::text END
    FROM {_REQUESTS} r WHERE r.id = %s"""
_CONTENTS = f"""
    SELECT c.content::text, array_agg(k.backend::text ORDER BY k.backend COLLATE "C"),
        array_agg(k.content::text ORDER BY k.backend COLLATE "C")
    FROM {_CONTACTS} c LEFT JOIN {_COPIES} k USING (request_id, email_id)
    WHERE c.request_id = %s GROUP BY c.request_id, c.email_id ORDER BY c.position"""

_PENDING = f"""
    SELECT request_id, backend, array_agg(email_id ORDER BY email_id) FROM {_COPIES}
    WHERE content IS NULL AND backend = ANY(%s) GROUP BY request_id, backend ORDER BY request_id, backend LIMIT %s"""
_STORE = f"""
    WITH stored AS (
        UPDATE {_COPIES} SET content = %s::json
        WHERE request_id = %s AND email_id = %s AND backend = %s AND content IS NULL RETURNING request_id)
    UPDATE {_REQUESTS} r SET failed = r.failed + %s FROM stored WHERE r.id = stored.request_id"""

# A contact that is being erased takes its row along. To wait for it could be a deadlock: an erasure of many contacts
# deletes them in another order. The request is looked at again as long as a row is left.
_DELETE_EXPIRED = (
    f"""
    DELETE FROM {_CONTACTS} WHERE (request_id, email_id) IN (
        SELECT c.request_id, c.email_id FROM {_CONTACTS} c JOIN {_REQUESTS} r ON r.id = c.request_id
        WHERE r.result IS NOT NULL AND r.expires_at <= statement_timestamp() FOR UPDATE OF c SKIP LOCKED)""",
    f"""
    UPDATE {_REQUESTS} r SET result = NULL
    WHERE r.result IS NOT NULL AND r.expires_at <= statement_timestamp()
        AND NOT EXISTS (SELECT FROM {_CONTACTS} c WHERE c.request_id = r.id)""",
)


class StoredReport(NamedTuple):
    """The record of a request as JSON text and, while its report is stored, the report's parts as JSON text.

    `contacts` has for each contact its text and the texts of its copies by backend, None for a pending one.
    """

    record: str
    result: str | None
    contacts: Sequence[tuple[str, Mapping[str, str | None]]]

    @property
    def deleted(self) -> int:
        """The number of contacts that were deleted, or merged into another one, since the request."""
        found: int = json.loads(self.record)["contacts"]
        return found - len(self.contacts)


def add(
    connection: Connection,
    found: PersonalData,
    copies: Mapping[str, str | None],
    *,
    by: str,
    days: int,
) -> UUID:
    """Record a request over the API, and store its report for some days; return its id.

    `copies` are those of each contact, by backend; None is a copy that the background service has yet to read.
    """
    request_id, email_ids = uuid.uuid4(), list(found.contacts)
    pending = sum(copy is None for copy in copies.values()) * len(email_ids)
    values = (request_id, by, ORIGIN_API, len(email_ids), pending, 0, days, found.result)
    connection.execute(_INSERT, values)
    connection.execute(_INSERT_CONTACTS, (request_id, email_ids, list(found.contacts.values())))
    connection.execute(_INSERT_COPIES, (request_id, email_ids, list(copies), list(copies.values())))
    return request_id


def add_record(connection: Connection, *, by: str, contacts: int, copies: int, failed: int) -> UUID:
    """Record a request whose report is not stored; return its id."""
    request_id = uuid.uuid4()
    connection.execute(_INSERT, (request_id, by, ORIGIN_COMMAND, contacts, copies, failed, 0, None))
    return request_id


def find(connection: Connection, request_id: UUID) -> StoredReport | None:
    """Return a request and its report, if there is one."""
    row = connection.execute(_RECORD, (request_id,)).fetchone()
    if row is None:
        return None
    record, result = row
    contents = [] if result is None else connection.execute(_CONTENTS, (request_id,)).fetchall()
    return StoredReport(
        record,
        result,
        [
            (content, {name: copy for name, copy in zip(names, copies, strict=True) if name is not None})
            for content, names, copies in contents
        ],
    )


def pending_copies(
    connection: Connection, backends: Sequence[str], limit: int | None = None
) -> list[tuple[UUID, str, list[UUID]]]:
    """Return the copies to be read from these backends: request, backend, contacts."""
    return connection.execute(_PENDING, (list(backends), limit)).fetchall()


def store_copy(
    connection: Connection, request_id: UUID, email_id: UUID, backend: str, copy: str, *, failed: bool
) -> None:
    """Store a copy, unless the contact or the report was deleted in the meantime."""
    connection.execute(_STORE, (copy, request_id, email_id, backend, int(failed)))


def delete_expired(connection: Connection) -> None:
    """Delete the reports whose time is over. Their records remain."""
    for statement in _DELETE_EXPIRED:
        connection.execute(statement)
