"""Writers of other software that do not have the tables in their `search_path`, as `pg_restore`."""

from __future__ import annotations

from typing import Any

import pytest

from ctms.database.pool import Connection
from tests.contacts.factories import address
from tests.stored_documents.conftest import Connect, differing, fill_all, valid

# Those of newsletters and waitlists need the history's tables in the path (decision 018).
PARTS = ("amo", "fxa")


@pytest.fixture
def contact(store: Connection) -> Any:
    """The id of a contact with a valid stored document."""
    row = store.execute("INSERT INTO emails (primary_email) VALUES (%s) RETURNING email_id", (address(),)).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def writer(connect: Connect) -> Connection:
    """A session without a `search_path`."""
    connection = connect()
    connection.execute("SET search_path = ''")
    connection.execute("SET lock_timeout = '60s'")  # autovacuum may have one
    return connection


def test_it_changes_a_contact(store: Connection, contact: Any, writer: Connection) -> None:
    fill_all(store)

    writer.execute("UPDATE public.emails SET first_name = 'new' WHERE email_id = %s", (contact,))

    assert valid(store) == 0


@pytest.mark.parametrize("table", PARTS)
@pytest.mark.parametrize("removal", ["DELETE FROM", "TRUNCATE"])
def test_it_adds_and_removes_a_part(
    store: Connection, contact: Any, writer: Connection, table: str, removal: str
) -> None:
    fill_all(store)
    assert valid(store) == 1
    writer.execute(f"INSERT INTO public.{table} (email_id) VALUES (%s)", (contact,))
    assert valid(store) == 0

    fill_all(store)
    assert valid(store) == 1
    writer.execute(f"{removal} public.{table}")
    assert valid(store) == 0
    fill_all(store)
    assert differing(store) == []
