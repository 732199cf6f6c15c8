"""The response for the id of a contact that does not exist: it names the contact that it was merged into, if any."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from ctms.database.pool import Connection
from ctms.errors import NotFound

UNKNOWN_CONTACT = "Unknown email_id"

# UNION, not UNION ALL, so that it ends whatever the table holds.
_FIND_MERGED = """
    WITH RECURSIVE chain AS (
        SELECT email_id AS old, merged_into FROM contact_tombstones WHERE email_id = ANY(%s)
        UNION
        SELECT c.old, t.merged_into FROM chain c JOIN contact_tombstones t ON t.email_id = c.merged_into)
    SELECT c.old, e.email_id FROM chain c JOIN emails e ON e.email_id = c.merged_into"""


def find_merged_into(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Return the existing contacts that these were merged into, through any number of merges, by the merged ids.

    An erased contact is not named, nor one that was merged into it.
    """
    return dict(connection.execute(_FIND_MERGED, (list(email_ids),)).fetchall())


def unknown_contact(connection: Connection, email_id: UUID, **extra: Any) -> NotFound:
    """Return the error for a contact that does not exist, with `extra` members and `merged_into` if it was merged."""
    merged_into = find_merged_into(connection, [email_id]).get(email_id)
    if merged_into is not None:
        extra["merged_into"] = str(merged_into)
    return NotFound(UNKNOWN_CONTACT, **extra)
