"""Rows of contacts written without the API: values that it would never store, and arbitrary times."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import text

from ctms.database.engine import db
from tests.contacts.factories import address

TABLES = ("emails", "amo", "fxa", "mofo", "newsletters", "waitlists")
LONG_AGO = "2020-01-01T00:00:00.000000+00:00"


def execute(sql: str, **values: Any) -> Any:
    """Run and commit a statement inside the test's transaction; return the first column of its first row."""
    result: Any = db.session.execute(text(sql), values)
    found = result.scalar() if result.returns_rows else None
    db.session.commit()
    return found


def insert(table: str, **columns: Any) -> None:
    """Insert a row."""
    names = ", ".join(f'"{name}"' for name in columns)
    places = ", ".join(f"CAST(:{name} AS json)" if name == "fields" else f":{name}" for name in columns)
    execute(f"INSERT INTO {table} ({names}) VALUES ({places})", **columns)


def insert_contact(**columns: Any) -> str:
    """Insert a row of `emails` and return its id."""
    email_id = str(columns.pop("email_id", uuid.uuid4()))
    insert("emails", email_id=email_id, **{"primary_email": address(), **columns})
    return email_id


def count(table: str, email_id: str) -> int:
    """Return how many rows the contact has in a table."""
    return int(execute(f"SELECT count(*) FROM {table} WHERE email_id = :email_id", email_id=email_id))


def set_back(email_id: str) -> None:
    """Set the times of all rows of the contact to `LONG_AGO`, so that later writes are recognizable."""
    for table in TABLES:
        execute(
            f"UPDATE {table} SET create_timestamp = :moment, update_timestamp = :moment WHERE email_id = :email_id",
            email_id=email_id,
            moment=LONG_AGO,
        )


def insert_only(*first_names: str) -> None:
    """Delete all contacts and insert these, whose documents are not stored."""
    execute("TRUNCATE emails CASCADE")
    execute("TRUNCATE contact_documents, outdated_documents, document_progress")
    for first_name in first_names:
        insert_contact(first_name=first_name)
