"""A fill that does not wait long for a writer of this service, since others would wait for the fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from ctms.contacts.stored_documents import store_written
from ctms.database.pool import Connection
from tests.contacts.factories import address
from tests.stored_documents.conftest import Connect, differing, fill_all, valid
from tests.stored_documents.test_races import outdate

Write = Callable[[Connection, Any], None]


@pytest.fixture
def contacts(store: Connection) -> list[UUID]:
    """The ids of two contacts with outdated documents, in their order."""
    rows = [
        store.execute("INSERT INTO emails (primary_email) VALUES (%s) RETURNING email_id", (address(),)).fetchone()
        for _ in range(2)
    ]
    assert fill_all(store) == 2
    outdate(store)
    store.execute("TRUNCATE document_progress")
    return sorted(row[0] for row in rows if row)


@pytest.fixture
def write(store_app: Any) -> Write:
    """A writer of this service."""

    def change(connection: Connection, email_id: Any) -> None:
        connection.execute("SET LOCAL ctms.stamps = 'on'")
        connection.execute("UPDATE emails SET update_timestamp = clock_timestamp() WHERE email_id = %s", (email_id,))
        with store_app.app_context():
            store_written(connection, email_id)

    return change


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
def test_a_fill_does_not_wait_for_a_slow_writer(
    store: Connection, connect: Connect, contacts: list[UUID], write: Write, ends: str
) -> None:
    slow, other = connect(), connect()
    slow.execute("BEGIN")
    write(slow, contacts[1])

    store.execute("SET lock_timeout = '5s'")
    assert fill_all(store) == 1, "that of the other contact"
    store.execute("RESET lock_timeout")
    assert valid(store) == 1
    with other.transaction():
        write(other, contacts[0])
    slow.execute(ends)

    fill_all(store)
    assert (valid(store), differing(store)) == (2, [])
