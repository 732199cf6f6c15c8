"""Random samples of large tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from ctms.database.pool import Connection

# Random pages, then random rows of those: every row is equally likely, and a large table is not read as a whole. About
# four pages per row, so that rows of the same page are rare.
_SAMPLE = """
    SELECT email_id FROM {table} TABLESAMPLE SYSTEM (least(100, 100.0 * %(pages)s / greatest(1,
        pg_relation_size('{table}') / current_setting('block_size')::int)))
    WHERE {which} ORDER BY random() LIMIT %(number)s"""
_FEWEST_PAGES = 2_000


def sample_contacts(
    connection: Connection, table: str, number: int, which: str = "true", values: Mapping[str, Any] | None = None
) -> list[UUID]:
    """Return the ids of at most `number` random contacts of a table's rows that match the SQL condition `which`.

    `values` are the parameters of the condition.
    """
    parameters = {**(values or {}), "number": number, "pages": max(_FEWEST_PAGES, 4 * number)}
    cursor = connection.execute(_SAMPLE.format(table=table, which=which), parameters)
    return [email_id for (email_id,) in cursor.fetchall()]
