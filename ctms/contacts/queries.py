"""Queries for contacts. All results are JSON text that the database renders (`documents`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any
from uuid import UUID

from ctms.contacts.documents import DOCUMENT, FROM_CONTACT, IDENTITY
from ctms.contacts.registry import IDENTITIES
from ctms.contacts.stored_documents import RENDER, contact_document, stored
from ctms.database.pool import Connection, ScalarQuery

_STORED_ONE = f"SELECT {stored('e')} FROM emails e WHERE e.email_id = %s"
_STORED = stored("e")
_IDENTITY = f"SELECT {IDENTITY} FROM emails e {FROM_CONTACT} WHERE e.email_id = %s"

# As the planner estimates it: rows per page at the last ANALYZE, times the current number of pages. A table that was
# never analysed has no such figure; then the statistics of inserts and deletes are used.
_ESTIMATE = """
    SELECT CASE WHEN relpages > 0
        THEN round(greatest(reltuples, 0)::float8 / relpages
            * (pg_relation_size(oid) / current_setting('block_size')::int))::bigint
        ELSE pg_stat_get_live_tuples(oid)
    END
    FROM pg_class WHERE oid = 'emails'::regclass"""


def document(email_id: UUID) -> ScalarQuery:
    """Return the query that renders the document of one contact."""
    return ScalarQuery(RENDER, (email_id,))


def stored_document(email_id: UUID) -> ScalarQuery:
    """Return the query for the stored document of one contact, NULL if it has no valid one."""
    return ScalarQuery(_STORED_ONE, (email_id,))


def documents_by_id(connection: Connection, email_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the documents of the existing contacts among these."""
    sql = f"SELECT contact.email_id, {contact_document()} FROM emails contact WHERE contact.email_id = ANY(%s)"
    return dict(connection.execute(sql, (list(email_ids),)).fetchall())


def identity(email_id: UUID) -> ScalarQuery:
    """Return the query for the identities of one contact, a JSON object."""
    return ScalarQuery(_IDENTITY, (email_id,))


def documents(identities: Mapping[str, Any]) -> ScalarQuery:
    """Return the query that renders the contacts that match all of `identities` (name: value): a JSON array."""
    return _find(DOCUMENT, identities)


def stored_documents(identities: Mapping[str, Any]) -> ScalarQuery:
    """Return the query for the same array of stored documents, NULL if one of the contacts has no valid one."""
    return _find(_STORED, identities)


def identities_of(identities: Mapping[str, Any]) -> ScalarQuery:
    """Return the query for the identities of the contacts that match all of `identities`, a JSON array of objects."""
    return _find(IDENTITY, identities)


def _find(what: str, identities: Mapping[str, Any]) -> ScalarQuery:
    conditions: list[tuple[str, int]] = []
    values: list[Any] = []
    for name, value in identities.items():
        found = IDENTITIES[name].expand_value(value)
        conditions.append((name, len(found)))
        values += found
    return ScalarQuery(_statement(what, tuple(conditions)), values)


@cache
def _statement(what: str, wanted: tuple[tuple[str, int], ...]) -> str:
    """Return the statement for identities, each with the number of its values, which are spellings for an address."""
    conditions = " AND ".join(IDENTITIES[name].match_condition(count) for name, count in wanted)
    return (
        "SELECT CASE WHEN count(*) = count(f.found) THEN"
        " '[' || coalesce(string_agg(f.found, ',' ORDER BY f.create_timestamp, f.email_id), '') || ']' END"
        f" FROM (SELECT {what} AS found, e.create_timestamp, e.email_id"
        f" FROM emails e {FROM_CONTACT} WHERE {conditions}) f"
    )


def estimate_contacts(connection: Connection) -> int:
    """Return the approximate number of contacts from the database's statistics, without reading the table."""
    row = connection.execute(_ESTIMATE).fetchone()
    return row[0] if row else 0
