"""Storing documents: it does not wait long for a writer of this service, since others would wait for it."""

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


def test_a_contact_that_another_writer_has_locked_is_skipped(
    store: Connection, store_app: Any, connect: Connect, contacts: list[UUID], write: Write
) -> None:
    """A writer may find neither the contact nor a free address, and then a contact that was created meanwhile.

    It tries to write that contact, so it waits for the writer that has locked it, which must not wait for the document.
    """
    holder, finder = connect(), connect()
    holder.execute("BEGIN")
    holder.execute("SET LOCAL ctms.stamps = 'on'")
    holder.execute("UPDATE emails SET update_timestamp = clock_timestamp() WHERE email_id = %s", (contacts[0],))
    finder.execute("BEGIN")
    with store_app.app_context():
        assert store_written(finder, contacts[0]) is not None

    holder.execute("SET LOCAL lock_timeout = '5s'")
    write(holder, contacts[0])
    holder.execute("COMMIT")
    finder.execute("COMMIT")

    assert (valid(store), differing(store)) == (1, [])
