"""What a caller may do, asked of the database at every request: what an operator takes away is gone at once."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any, Literal

import psycopg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.errors import BadRequest, Forbidden, Unauthorized
from ctms.pool import Connection, Cursor, ScalarQuery, reading

logger = logging.getLogger(__name__)

VIEW = "view_contacts"
MANAGE = "manage_contacts"
DELETE = "delete_contacts"
VIEW_ERASURES = "view_erasures"
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


# One statement reads what was asked for, and does not read it for who may not have it. OFFSET 0 keeps the question
# who calls a query of its own: merged into the outer one it would be asked at each use.
_ANSWER = """
    SELECT caller.*, CASE WHEN caller.enabled AND caller.allowed THEN ({question}) END
    FROM ({caller} OFFSET 0) caller"""


class Caller:
    """The client behind a verified token, and whether it has the `permission` (None: none is needed)."""

    def __init__(self, connection: Connection, client_id: str, permission: str | None) -> None:
        self.client_id = client_id
        self._connection = connection
        self._permission = permission
        self._pending: Cursor | None = None
        self._row: tuple[Any, ...] | None = None
        self._known = False

    def look_up(self) -> None:
        """Ask who the caller is; on a connection in pipeline mode the answer comes with that of what follows."""
        self._pending = self._connection.execute(_CALLER, (self._permission, self.client_id))

    def answer(self, question: ScalarQuery) -> Any:
        """Return what the scalar query `question` selects, None for no row.

        Raises as `require` does, and then nothing was read.
        """
        cursor = self._connection.execute(_answer(question.sql), (*question.values, self._permission, self.client_id))
        self._learn(cursor.fetchone())
        self.require()
        assert self._row is not None  # noqa: S101  or `require` had raised
        return self._row[3]

    def require(self) -> None:
        """Raise `Unauthorized`, `BadRequest` or `Forbidden` unless the client may do what it asks for."""
        if not self._known:
            if self._pending is None:
                self.look_up()
            assert self._pending is not None  # noqa: S101
            self._learn(self._pending.fetchone())
        match self.refused_as:
            case "unknown_client":
                raise Unauthorized(INVALID)
            case "disabled_client":
                raise BadRequest("API Client has been disabled")
            case "missing_permission":
                raise Forbidden(f"Permission(s) required: {self._permission}")

    @property
    def known(self) -> bool:
        """True once the database has said who the caller is, or that nobody is."""
        return self._known

    @property
    def refused_as(self) -> Literal["unknown_client", "disabled_client", "missing_permission"] | None:
        """Why the caller is not let in, None for who is; to be asked when it is `known`."""
        if self._row is None:
            return "unknown_client"
        enabled, allowed, *_ = self._row
        if not enabled:
            return "disabled_client"
        return "missing_permission" if self._permission is not None and not allowed else None

    def remember(self) -> None:
        """Note that the client was here, at most once a minute, waiting for nobody and failing nothing."""
        if self._row is None or not self._row[0] or not self._row[2]:
            return
        try:
            with reading() as connection:
                connection.execute(_SEEN, (self.client_id,))
        except (psycopg.Error, PoolTimeout):
            logger.warning("last access not stored", extra={"client_id": self.client_id})

    def _learn(self, row: tuple[Any, ...] | None) -> None:
        self._row = row
        self._known = True


@cache
def _answer(sql: str) -> str:
    return _ANSWER.format(question=sql, caller=_CALLER)
