"""The SQL of the writers. Tables, columns, types and defaults come from the registry.

A statement that writes child rows selects from the contact's row of `emails`. Without that row it writes nothing, and
with it every child gets the contact's timestamp. The statement locks the row, so that a contact created since the last
statement cannot be deleted before its child rows exist.
"""

from __future__ import annotations

from functools import cache

from psycopg.sql import Literal

from ctms.addresses import match_condition
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, IDENTITIES, LISTS, PARTS, SUB_DOCUMENTS
from ctms.database.rendering import compact


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _values(part: Part) -> str:
    return ", ".join(f"%({column})s::{part.types[column]}" for column in part.columns)


def _from_excluded(columns: tuple[str, ...]) -> str:
    return "".join(f'"{column}" = excluded."{column}", ' for column in columns)


_INSERT_EMAIL = f"""
    INSERT INTO emails ({_names(EMAIL.columns)}, create_timestamp, update_timestamp)
    SELECT {_values(EMAIL)}, moment, moment FROM clock_timestamp() AS moment"""

INSERT_EMAIL = f"{_INSERT_EMAIL} ON CONFLICT DO NOTHING"
"""Inserts nothing if another contact, committed or in a concurrent transaction, has one of the identities."""

OVERWRITE_EMAIL = f"""
    UPDATE emails SET {"".join(f'"{name}" = %({name})s::{EMAIL.types[name]}, ' for name in EMAIL.columns[1:])}
        update_timestamp = clock_timestamp()
    WHERE email_id = %(email_id)s AND xmin <> pg_current_xact_id()::xid"""
"""Skips a row that this transaction has just inserted."""


@cache
def create(parts: tuple[str, ...]) -> str:
    """Return the statement that creates a contact with its `parts`, and selects 1, or 0 if an identity is taken."""
    return compact(f"""
        WITH contact AS ({_INSERT_EMAIL} ON CONFLICT DO NOTHING RETURNING email_id, update_timestamp)
        {"".join(f", {name}_written AS ({_insert(PARTS[name])})" for name in parts)}
        SELECT count(*) FROM contact""")


@cache
def replace_parts(parts: tuple[str, ...]) -> str:
    """Return the statement that writes the `parts` of the contact `%(contact)s` and deletes all other parts."""
    return compact(f"""
        WITH contact AS (
            SELECT email_id, update_timestamp FROM emails WHERE email_id = %(contact)s FOR NO KEY UPDATE)
        {_removals(parts)}
        {"".join(f", {name}_written AS ({_insert(PARTS[name])} {_on_conflict(PARTS[name])})" for name in parts)}
        SELECT""")


def parameter(name: str) -> str:
    """Return the parameter of a part: a prefix for a sub-document, the name of the JSON array for a list."""
    return f"{name}."


def _insert(part: Part) -> str:
    prefix = parameter(part.name)
    if part.many:
        record = ", ".join(f'"{column}" {part.types[column]}' for column in part.columns)
        values = ", ".join(f'r."{column}"' for column in part.columns)
        source = f"contact c, json_to_recordset(%({prefix})s) AS r ({record})"
    else:
        values = ", ".join(f"%({prefix}{column})s::{part.types[column]}" for column in part.columns)
        source = "contact c"
    return f"""
        INSERT INTO {part.table} (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT c.email_id, {values}, c.update_timestamp, c.update_timestamp FROM {source}"""


def _on_conflict(part: Part, given: tuple[str, ...] | None = None) -> str:
    changed = tuple(column for column in (part.columns if given is None else given) if column not in part.key)
    return f"""
        ON CONFLICT ({_names(part.key)}) DO UPDATE
        SET {_from_excluded(changed)}update_timestamp = excluded.update_timestamp"""


def _removals(parts: tuple[str, ...]) -> str:
    removals = ""
    for name, part in {**SUB_DOCUMENTS, **LISTS}.items():
        if name not in parts:
            others = ""
        elif part.many:
            others = f" AND p.name <> ALL (SELECT e ->> 'name' FROM json_array_elements(%({parameter(name)})s) e)"
        else:
            continue
        removals += (
            f", {name}_removed AS (DELETE FROM {part.table} p USING contact c WHERE p.email_id = c.email_id{others})"
        )
    return removals


_IS_TAKEN = {
    name: f"lower({one.column}) = lower(%({one.column})s)"
    if one.is_address
    else f"{one.column} = %({one.column})s::{EMAIL.types[one.column]}"
    for name, one in IDENTITIES.items()
    if one.part is EMAIL and one.unique_constraints
}
TAKEN = f"""
    SELECT CASE {" ".join(f"WHEN {condition} THEN '{name}'" for name, condition in _IS_TAKEN.items())} END
    FROM emails WHERE {" OR ".join(_IS_TAKEN.values())} LIMIT 1"""
"""Selects the name of an identity that another row of `emails` has."""

LOCK = "SELECT FROM emails WHERE email_id = %s FOR NO KEY UPDATE"
LOCK_ADDRESS = "SELECT primary_email FROM emails WHERE email_id = %s FOR NO KEY UPDATE"

HAS_WAITLIST = "SELECT true FROM waitlists WHERE email_id = %s AND name = %s"
NEWSLETTER_STATES = "SELECT name, coalesce(subscribed, true) FROM newsletters WHERE email_id = %s AND name = ANY(%s)"


@cache
def ids_by_address(count: int) -> str:
    """Return the query for the contacts with an address in one of `count` spellings."""
    return f"SELECT email_id FROM emails WHERE {match_condition('primary_email', count)}"


@cache
def update_email(given: tuple[str, ...]) -> str:
    """Return the statement that updates the columns `given` (values in that order, then the id) and the timestamp."""
    assignments = "".join(f'"{column}" = %s::{EMAIL.types[column]}, ' for column in given)
    return f"UPDATE emails SET {assignments}update_timestamp = clock_timestamp() WHERE email_id = %s"


@cache
def upsert(name: str, given: tuple[str, ...]) -> str:
    """Return the statement that inserts a row of a part, or updates the columns `given` of an existing row."""
    part = PARTS[name]
    return f"""
        INSERT INTO {part.table} (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {_values(part)}, e.update_timestamp, e.update_timestamp
        FROM emails e WHERE e.email_id = %(contact)s FOR NO KEY UPDATE {_on_conflict(part, given)}"""


@cache
def update_entry(name: str, given: tuple[str, ...]) -> str:
    """Return the statement that updates an existing entry: values of the columns `given`, then id and name."""
    part = LISTS[name]
    assignments = "".join(f'"{column}" = %s::{part.types[column]}, ' for column in given)
    return f"""
        UPDATE {part.table} s SET {assignments}update_timestamp = e.update_timestamp
        FROM emails e WHERE e.email_id = s.email_id AND s.email_id = %s AND s.name = %s"""


@cache
def unsubscribe(name: str) -> str:
    """Return the statement that unsubscribes the contact from all its newsletters or waitlists."""
    return f"""
        UPDATE {LISTS[name].table} s SET subscribed = false, update_timestamp = e.update_timestamp
        FROM emails e WHERE e.email_id = s.email_id AND s.email_id = %s AND s.subscribed IS DISTINCT FROM false"""


@cache
def delete(name: str) -> str:
    """Return the statement that deletes a sub-document."""
    return f"DELETE FROM {SUB_DOCUMENTS[name].table} WHERE email_id = %s"


@cache
def delete_default(name: str) -> str:
    """Return the statement that deletes a sub-document if only defaults are left in it."""
    return f"DELETE FROM {SUB_DOCUMENTS[name].table} WHERE email_id = %s AND {default_condition(SUB_DOCUMENTS[name])}"


def default_condition(part: Part) -> str:
    """Return the condition that only defaults are stored in a sub-document's row."""
    return " AND ".join(
        f'"{column}" IS NOT TRUE'
        if default is False
        else f'"{column}" IS NOT DISTINCT FROM {Literal(default).as_string()}'
        for column, default in part.defaults.items()
    )
