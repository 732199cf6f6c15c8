"""One snapshot of the database, shared by several connections for a limited time.

The snapshot keeps vacuum from removing rows that were deleted since. So its transactions end with the time limit, which
both the client and the server enforce. They lock no row, and `/updates` does not wait for them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import Literal

from ctms.contacts.queries import estimate_contacts
from ctms.database.pool import Connection, connect_with_retry
from ctms.database.replicas import Replicas
from ctms.errors import OperatorError
from ctms.history.feeds import settled

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_TIMEOUTS = ("statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
# The last one exists since PostgreSQL 17. Older servers cancel no statement while its client does not read.
_SET_TIMEOUTS = "SELECT set_config(name, %s, true) FROM pg_settings WHERE name = ANY(%s)"
# PostgreSQL cannot estimate how many ids are in a range. It often expects a single row, and would compare each contact
# of the slice with each entry. The connections are the parallel workers.
_PLAN = "SELECT set_config('enable_nestloop', 'off', true), set_config('max_parallel_workers_per_gather', '0', true)"
_FACTS = "SELECT statement_timestamp(), (SELECT version_num FROM alembic_version), pg_export_snapshot()"


class Snapshot:
    """A snapshot of the database. `follow_from` is the `start` from which `/updates` lists all that it lacks.

    It is read before the snapshot is taken: all that was committed with an earlier time is in the snapshot, and all
    that was not will have a later one (docs/decisions/003-updates-miss-nothing.md). The snapshot is that of a replica,
    if one is usable.
    """

    def __init__(
        self, url: str, parameters: Mapping[str, Any], seconds: float, replicas: Replicas | None = None
    ) -> None:
        self._url = url
        self._replicas = replicas
        self._parameters = {**parameters, "application_name": "ctms export", "autocommit": True}
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._connections: list[Connection] = []
        self._first: Connection | None = None
        self.follow_from: datetime
        self.taken_at: datetime
        self.revision: str
        self._name: str
        self.estimated_contacts: int

    def take(self) -> None:
        """Take the snapshot. Raises `psycopg.Error`."""
        connection = self._connect()
        row = settled(connection).fetchone()
        assert row is not None  # noqa: S101  an aggregate has one row
        self.follow_from = row[0]
        connection = self._move_to_replica(connection)
        connection.execute(_BEGIN)
        row = connection.execute(_FACTS).fetchone()
        assert row is not None  # noqa: S101  it has no condition
        self.taken_at, self.revision, self._name = row
        self.estimated_contacts = estimate_contacts(connection)
        self._prepare(connection)
        self._first = connection

    def begin(self) -> Connection:
        """Return a connection in a transaction that sees the snapshot. Raises `psycopg.Error`."""
        connection, self._first = self._first, None
        if connection is None:
            connection = self._connect()
            connection.execute(_BEGIN)
            connection.execute(f"SET TRANSACTION SNAPSHOT {Literal(self._name).as_string()}")
            self._prepare(connection)
        return connection

    def check_time(self) -> None:
        """Raise `OperatorError` when the time is over."""
        if time.monotonic() >= self._deadline:
            raise OperatorError(
                f"the export did not end within {self._seconds:,.0f} seconds, for which it may keep its snapshot:"
                " nothing of it is left; allow more time, or export less"
            )

    def cancel(self) -> None:
        """Cancel what the connections are doing."""
        for connection in list(self._connections):
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=2)

    def close(self) -> None:
        """Close all connections."""
        for connection in list(self._connections):
            connection.close()

    def _move_to_replica(self, primary: Connection) -> Connection:
        """Return a connection to a replica, to which all others are opened, too; that to the primary if it is read."""
        if self._replicas is None:
            return primary
        replica = self._replicas.open_connection(primary, **self._parameters)
        if replica is None:
            return primary
        primary.close()
        self._connections.append(replica)
        # The snapshot is known on this one of the servers that the URL names.
        address = {"host": replica.info.host, "hostaddr": replica.info.hostaddr, "port": replica.info.port}
        self._url = self._replicas.url
        self._parameters |= {name: value for name, value in address.items() if value}
        return replica

    def _connect(self) -> Connection:
        connection = connect_with_retry(self._url, **self._parameters)
        self._connections.append(connection)
        return connection

    def _prepare(self, connection: Connection) -> None:
        connection.execute(_PLAN)
        left = max(1, round((self._deadline - time.monotonic()) * 1000))
        connection.execute(_SET_TIMEOUTS, (str(left), list(_TIMEOUTS)))
