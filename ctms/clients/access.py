"""Authorization of callers, by the database, at every request: a revoked permission is gone at once."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import psycopg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.clients.rate_limits import RateLimit, make_rate_limit
from ctms.clients.refusals import AuthFailure
from ctms.database.pool import Connection, Cursor, ScalarQuery, reading
from ctms.database.rendering import compact
from ctms.errors import BadRequest, Forbidden, Unauthorized
from ctms.history.context import SET_ACTOR, STAMPS

logger = logging.getLogger(__name__)

VIEW_CONTACTS = "view_contacts"
LIST_CONTACTS = "list_contacts"
MANAGE_CONTACTS = "manage_contacts"
DELETE_CONTACTS = "delete_contacts"
VIEW_ERASURES = "view_erasures"
VIEW_HISTORY = "view_history"
EXPORT_CONTACTS = "export_contacts"
MERGE_CONTACTS = "merge_contacts"
SEARCH_CONTACTS = "search_contacts"
ADMIN_ROLE = "admin"

INVALID_CREDENTIALS = "Could not validate credentials"

# The role `admin` has every permission, including those that plugins add later.
_COLUMNS = compact("""
    c.enabled,
    EXISTS (
        SELECT FROM api_client_roles g JOIN roles r ON r.id = g.role_id
        WHERE g.api_client_id = c.client_id AND (r.name = 'admin' OR EXISTS (
            SELECT FROM role_permissions rp JOIN permissions p ON p.id = rp.permission_id
            WHERE rp.role_id = r.id AND p.name = %s))
    ) AS allowed,
    c.last_access IS NULL OR c.last_access < now() - interval '1 minute' AS unseen,
    c.rate_limit_requests, c.rate_limit_seconds, c.rate_limit_burst""")
_FROM_CLIENT = "FROM api_client c WHERE c.client_id = %s"
_CALLER = f"SELECT {_COLUMNS} {_FROM_CLIENT}"
_SET_ACTOR = SET_ACTOR.format(actor="'client:' || c.client_id", request_id="%s")
_WRITER = f"SELECT {_COLUMNS}, {_SET_ACTOR} {_FROM_CLIENT}"
_STAMPING_WRITER = f"SELECT {_COLUMNS}, {_SET_ACTOR}, {STAMPS} {_FROM_CLIENT}"

# A locked row is skipped, since another request is writing the same value.
_TOUCH_LAST_ACCESS = """
    WITH due AS (
        SELECT client_id FROM api_client
        WHERE client_id = %s AND (last_access IS NULL OR last_access < now() - interval '1 minute')
        FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE api_client SET last_access = now() FROM due WHERE api_client.client_id = due.client_id"""


# One statement authorizes the caller and runs the query, which it skips for a caller without permission. OFFSET 0 keeps
# the planner from merging the caller's subquery into the outer query, which would evaluate it at each use.
_FETCH_SCALAR = (
    "SELECT caller.*, CASE WHEN caller.enabled AND caller.allowed THEN ({query}) END FROM ({caller} OFFSET 0) caller"
)


class Caller:
    """The client that a verified token names, and the `permission` that its request needs (None: none)."""

    def __init__(self, connection: Connection, client_id: str, permission: str | None) -> None:
        self.client_id = client_id
        self._connection = connection
        self._permission = permission
        self._pending: Cursor | None = None
        self._row: tuple[Any, ...] | None = None
        self._is_known = False

    def look_up(self) -> None:
        """Send the query for the caller."""
        self._pending = self._connection.execute(_CALLER, (self._permission, self.client_id))

    def look_up_writer(self, request_id: str, *, stamps: bool = False) -> None:
        """Send the query for the caller of a request that writes, who becomes the actor of its changes.

        In pipeline mode the result arrives with those of later statements. `stamps` declares that the request gives
        each contact that it changes a new `update_timestamp`.
        """
        query = _STAMPING_WRITER if stamps else _WRITER
        self._pending = self._connection.execute(query, (self._permission, request_id, self.client_id))

    def fetch_scalar(self, query: ScalarQuery) -> Any:
        """Authorize the caller and return the value that the query selects, None for no row.

        Raises as `authorize` does; the query does not run then.
        """
        cursor = self._connection.execute(with_caller(query.sql), (*query.values, self._permission, self.client_id))
        self._set_row(cursor.fetchone())
        self.authorize()
        assert self._row is not None  # noqa: S101  `authorize` raises otherwise
        return self._row[-1]

    def authorize(self) -> None:
        """Raise `Unauthorized`, `BadRequest` or `Forbidden` unless the client is enabled and has the permission."""
        if not self._is_known:
            if self._pending is None:
                self.look_up()
            assert self._pending is not None  # noqa: S101
            self._set_row(self._pending.fetchone())
        match self.refusal_cause:
            case AuthFailure.UNKNOWN_CLIENT:
                raise Unauthorized(INVALID_CREDENTIALS)
            case AuthFailure.DISABLED_CLIENT:
                raise BadRequest("API Client has been disabled")
            case AuthFailure.MISSING_PERMISSION:
                raise Forbidden(f"Permission(s) required: {self._permission}")

    @property
    def is_known(self) -> bool:
        """True once the query for the caller has returned, with a row or without."""
        return self._is_known

    @property
    def refusal_cause(self) -> AuthFailure | None:
        """The cause of a refusal, None for an authorized caller; valid once the caller `is_known`."""
        if self._row is None:
            return AuthFailure.UNKNOWN_CLIENT
        enabled, allowed, *_ = self._row
        if not enabled:
            return AuthFailure.DISABLED_CLIENT
        return AuthFailure.MISSING_PERMISSION if self._permission is not None and not allowed else None

    @property
    def rate_limit(self) -> RateLimit | None:
        """The rate limit of the client, None if it has none; valid once the caller `is_known`."""
        return None if self._row is None or self._row[3] is None else make_rate_limit(self._row[3:6])

    def touch_last_access(self) -> None:
        """Store the time of the client's last access, at most once a minute, without waiting for a lock.

        A failure is logged and does not fail the request.
        """
        if self._row is None or not self._row[0] or not self._row[2]:
            return
        try:
            with reading() as connection:
                connection.execute(_TOUCH_LAST_ACCESS, (self.client_id,))
        except (psycopg.Error, PoolTimeout):
            logger.warning("last access not stored", extra={"client_id": self.client_id})

    def _set_row(self, row: tuple[Any, ...] | None) -> None:
        self._row = row
        self._is_known = True


@cache
def with_caller(sql: str) -> str:
    """Return the statement that authorizes the caller and runs this one: the caller's columns, and its value."""
    return _FETCH_SCALAR.format(query=sql, caller=_CALLER)
