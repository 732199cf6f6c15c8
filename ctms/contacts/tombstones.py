"""The response for the id of a contact that does not exist: it names the contact that it was merged into, if any."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ctms.database.pool import Connection
from ctms.errors import NotFound

UNKNOWN_CONTACT = "Unknown email_id"

# UNION, not UNION ALL, so that it ends whatever the table holds.
_FIND_MERGED = """
    WITH RECURSIVE chain AS (
        SELECT merged_into FROM contact_tombstones WHERE email_id = %s
        UNION
        SELECT t.merged_into FROM chain c JOIN contact_tombstones t ON t.email_id = c.merged_into)
    SELECT e.email_id FROM chain c JOIN emails e ON e.email_id = c.merged_into"""


def find_merged_into(connection: Connection, email_id: UUID) -> UUID | None:
    """Return the existing contact that this one was merged into, through any number of merges; None if there is none.

    An erased contact is not named, nor one that was merged into it.
    """
    row = connection.execute(_FIND_MERGED, (email_id,)).fetchone()
    return row[0] if row else None


def unknown_contact(connection: Connection, email_id: UUID, **extra: Any) -> NotFound:
    """Return the error for a contact that does not exist, with `extra` members and `merged_into` if it was merged."""
    merged_into = find_merged_into(connection, email_id)
    if merged_into is not None:
        extra["merged_into"] = str(merged_into)
    return NotFound(UNKNOWN_CONTACT, **extra)
