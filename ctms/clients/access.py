"""What a caller may do, asked of the database at every request: what an operator takes away is gone at once."""

from __future__ import annotations

import logging
from typing import Any

import psycopg

from ctms.database import Connection, Cursor, unit_of_work
from ctms.errors import BadRequest, Forbidden, Unauthorized

logger = logging.getLogger(__name__)

VIEW = "view_contacts"
MANAGE = "manage_contacts"
DELETE = "delete_contacts"
ADMIN_ROLE = "admin"

INVALID = "Could not validate credentials"

# The role `admin` has every permission, those of plugins that come later included.
_CALLER = """
    SELECT c.enabled,
        EXISTS (
            SELECT FROM api_client_roles g JOIN roles r ON r.id = g.role_id
            WHERE g.api_client_id = c.client_id AND (r.name = 'admin' OR EXISTS (
                SELECT FROM role_permissions rp JOIN permissions p ON p.id = rp.permission_id
                WHERE rp.role_id = r.id AND p.name = %s))
        ) AS allowed,
        c.last_access IS NULL OR c.last_access < now() - interval '1 minute' AS unseen
    FROM api_client c WHERE c.client_id = %s"""

# Who finds the row locked leaves it: another request is just writing the same thing.
_SEEN = """
    WITH due AS (
        SELECT client_id FROM api_client
        WHERE client_id = %s AND (last_access IS NULL OR last_access < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE api_client SET last_access = now() FROM due WHERE api_client.client_id = due.client_id"""


class Caller:
    """The client behind a verified token. It is looked up with whatever the request asks of the database first."""

    def __init__(self, connection: Connection, client_id: str, permission: str | None) -> None:
        self.client_id = client_id
        self._permission = permission
        self._answer: Cursor = connection.execute(_CALLER, (permission, client_id))
        self._row: tuple[Any, ...] | None = None
        self._asked = False

    def require(self) -> None:
        """Raise `Unauthorized`, `BadRequest` or `Forbidden` unless the client may do what it asks for."""
        if not self._asked:
            self._row = self._answer.fetchone()
            self._asked = True
        if self._row is None:
            raise Unauthorized(INVALID)
        enabled, allowed, _ = self._row
        if not enabled:
            raise BadRequest("API Client has been disabled")
        if self._permission is not None and not allowed:
            raise Forbidden(f"Permission(s) required: {self._permission}")

    def remember(self) -> None:
        """Note that the client was here, at most once a minute, waiting for nobody and failing nothing."""
        if self._row is None or not self._row[0] or not self._row[2]:
            return
        try:
            with unit_of_work(writes=False) as connection:
                connection.execute(_SEEN, (self.client_id,))
        except psycopg.Error:
            logger.warning("last access not stored", extra={"client_id": self.client_id})
