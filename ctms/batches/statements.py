"""The SQL by which a batch writes many contacts: a fixed number of statements, whatever the number of contacts.

The rows are a JSON array. Each has its contact (`contact`) and the names of its given columns (`given`); columns that
are not given keep their stored value, or get the default in a new row. The contacts are locked, so the stored rows that
a statement reads are those that it overwrites.
"""

from __future__ import annotations

from functools import cache

from psycopg.sql import Literal

from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, IDENTITIES, LISTS, PARTS, SUB_DOCUMENTS
from ctms.contacts.statements import default_condition

LOCK = "SELECT FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR NO KEY UPDATE"
"""Locks contacts in the order of their ids, which prevents deadlocks between transactions that lock many."""

LOCK_AT_ONCE = f"{LOCK} SKIP LOCKED"
"""Locks those contacts that no other transaction has locked."""


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _record(part: Part) -> str:
    columns = ", ".join(f'"{column}" {part.types[column]}' for column in part.columns)
    return f"json_to_recordset(%s::json) AS g (contact uuid, given text[], {columns})"


@cache
def find_holders(name: str) -> str:
    """Return the query for the contacts with one of many values of an identity: the value's position, and the id."""
    one = IDENTITIES[name]
    alias = one.part.alias
    condition = (
        f"lower({one.sql}) = lower(g.value)"
        if one.is_address
        else f"{one.sql} = g.value{'::uuid' if one.has_uuid_column else ''}"
    )
    return f"""
        SELECT DISTINCT g.position, {alias}.email_id
        FROM unnest(%s::int[], %s::text[]) AS g (position, value)
        JOIN {one.part.table} {alias} ON {condition}"""


# The addresses in one order: two batches that create the same contacts must not wait for each other.
INSERT_EMAILS = f"""
    INSERT INTO emails ({_names(EMAIL.columns)}, create_timestamp, update_timestamp)
    SELECT {_names(EMAIL.columns)}, moment, moment FROM (
        SELECT g.*, clock_timestamp() AS moment FROM {_record(EMAIL)} ORDER BY lower(g.primary_email) COLLATE "C") r
    ON CONFLICT DO NOTHING RETURNING email_id"""
"""Inserts contacts, except those with an identity that another one has, committed or in a concurrent transaction."""

_CHANGED = "".join(
    f""""{name}" = CASE WHEN '{name}' = ANY(g.given) THEN g."{name}" ELSE e."{name}" END, """
    for name in EMAIL.columns[1:]
)
UPDATE_EMAILS = f"""
    UPDATE emails e SET {_CHANGED}update_timestamp = clock_timestamp()
    FROM {_record(EMAIL)} WHERE e.email_id = g.contact"""


@cache
def upsert(name: str) -> str:
    """Return the statement that inserts rows of a part, or updates the given columns of existing ones."""
    part = PARTS[name]
    key = "s.email_id = g.contact" + (" AND s.name = g.name" if part.many else "")
    changed = tuple(column for column in part.columns if column not in part.key)
    return f"""
        INSERT INTO {part.table} AS t (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {", ".join(_value(part, column) for column in part.columns)},
            e.update_timestamp, e.update_timestamp
        FROM {_record(part)} JOIN emails e ON e.email_id = g.contact LEFT JOIN {part.table} s ON {key}
        ON CONFLICT ({_names(part.key)}) DO UPDATE
        SET {"".join(f'"{column}" = excluded."{column}", ' for column in changed)}
            update_timestamp = excluded.update_timestamp"""


def _value(part: Part, column: str) -> str:
    if column == "name" and part.many:
        return "g.name"
    default = part.defaults.get(column)
    if part.types[column].startswith("JSON"):
        literal = "'{}'::json"
    else:
        literal = f"{Literal(default).as_string()}::{part.types[column]}"
    return (
        f"CASE WHEN '{column}' = ANY(g.given) THEN g.\"{column}\" WHEN s.email_id IS NULL THEN {literal}"
        f' ELSE s."{column}" END'
    )


@cache
def delete(name: str) -> str:
    """Return the statement that deletes a sub-document of contacts."""
    return f"DELETE FROM {SUB_DOCUMENTS[name].table} WHERE email_id = ANY(%s)"


@cache
def delete_default(name: str) -> str:
    """Return the statement that deletes a sub-document of those contacts that have only defaults in it."""
    return f"{delete(name)} AND {default_condition(SUB_DOCUMENTS[name])}"


@cache
def unsubscribe(name: str) -> str:
    """Return the statement that unsubscribes contacts from all their newsletters or waitlists."""
    return f"""
        UPDATE {LISTS[name].table} s SET subscribed = false, update_timestamp = e.update_timestamp
        FROM emails e
        WHERE e.email_id = s.email_id AND s.email_id = ANY(%s) AND s.subscribed IS DISTINCT FROM false"""
