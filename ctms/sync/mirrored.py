"""The contacts that a backend which selects contacts may have: the table `outbox_mirrored`.

The table lists what was pushed while the backend selected. It lacks what was pushed while the backend wanted all
contacts: `receivers.unlisted_at` is the time of the last such push. While it is set, the backend may have any contact.
`complete` lists all contacts and clears it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from ctms.database.pool import Connection
from ctms.outbox.lanes import BACKEND

BATCH = 10_000
"""Number of contacts that one statement of `complete` lists."""

_ADD = """
    INSERT INTO outbox_mirrored (backend, email_id)
    SELECT %s, c FROM unnest(%s::uuid[]) AS c ORDER BY c ON CONFLICT DO NOTHING"""
_REMOVE = "DELETE FROM outbox_mirrored WHERE backend = %s AND email_id = ANY(%s)"
_FIND = f"""
    SELECT email_id FROM outbox_mirrored WHERE backend = %(backend)s::text AND email_id = ANY(%(ids)s::uuid[])
    UNION
    SELECT c FROM unnest(%(ids)s::uuid[]) AS c WHERE EXISTS (
        SELECT FROM receivers WHERE kind = '{BACKEND}' AND name = %(backend)s::text AND unlisted_at IS NOT NULL)"""

# At most one write per second, however many lanes push: so the time may be up to a second too early.
_PRECISION = "interval '1 second'"
_RECORD_UNLISTED = f"""
    INSERT INTO receivers AS r (kind, name, failures, unlisted_at)
    SELECT '{BACKEND}', %(backend)s::text, 0, clock_timestamp()
    WHERE NOT EXISTS (
        SELECT FROM receivers WHERE kind = '{BACKEND}' AND name = %(backend)s::text
        AND unlisted_at > clock_timestamp() - {_PRECISION})
    ON CONFLICT (kind, name) DO UPDATE SET unlisted_at = excluded.unlisted_at"""

_BEGIN = f"""
    SELECT clock_timestamp() FROM receivers
    WHERE kind = '{BACKEND}' AND name = %(backend)s::text AND unlisted_at IS NOT NULL"""
_LIST = """
    WITH looked AS MATERIALIZED (SELECT email_id FROM emails {behind} ORDER BY email_id LIMIT %(limit)s),
    added AS (
        INSERT INTO outbox_mirrored (backend, email_id)
        SELECT %(backend)s::text, email_id FROM looked ORDER BY email_id ON CONFLICT DO NOTHING)
    SELECT email_id FROM looked ORDER BY email_id DESC LIMIT 1"""
_BEHIND = "WHERE email_id > %(last)s"
_END = f"""
    UPDATE receivers SET unlisted_at = NULL
    WHERE kind = '{BACKEND}' AND name = %(backend)s::text AND unlisted_at < %(began)s - {_PRECISION}"""


def add(connection: Connection, backend: str, email_ids: Collection[UUID] | Collection[str]) -> None:
    """List contacts that the backend may have from now on."""
    connection.execute(_ADD, (backend, list(email_ids)))


def remove(connection: Connection, backend: str, email_ids: Collection[UUID]) -> None:
    """Remove contacts that the backend has deleted from the list."""
    connection.execute(_REMOVE, (backend, list(email_ids)))


def find(connection: Connection, backend: str, email_ids: Collection[UUID]) -> set[UUID]:
    """Return those of the contacts that the backend may have."""
    found = connection.execute(_FIND, {"backend": backend, "ids": list(email_ids)}).fetchall()
    return {email_id for (email_id,) in found}


def record_unlisted(connection: Connection, backend: str) -> None:
    """Record that unlisted contacts are pushed to the backend; to be committed before the push."""
    connection.execute(_RECORD_UNLISTED, {"backend": backend})


def complete(connection: Connection, backend: str) -> Iterator[None]:
    """List all contacts, batch by batch, if the backend was pushed contacts that are not listed.

    Afterwards the list is complete, unless a worker has pushed unlisted contacts in the meantime. Deleted contacts need
    no entry: each erasure deletes them, listed or not.
    """
    values: dict[str, Any] = {"backend": backend, "limit": BATCH}
    row = connection.execute(_BEGIN, values).fetchone()
    if row is None:
        return
    (values["began"],) = row
    sql = _LIST.format(behind="")
    while row := connection.execute(sql, values).fetchone():
        (values["last"],) = row
        yield
        sql = _LIST.format(behind=_BEHIND)
    connection.execute(_END, values)
