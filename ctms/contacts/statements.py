"""The SQL of the writers. Columns, types and defaults come from the schemas and the models.

A statement that writes child rows selects from the contact's row of `emails`. Without that row it writes nothing, and
with it every child gets the contact's timestamp. The statement locks the row, so that a contact created since the last
statement cannot be deleted before its child rows exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.dialects import postgresql

from ctms.addresses import match_condition
from ctms.contacts import models, schemas
from ctms.database.engine import Base


class ContactTable:
    """A table of contact data, with the columns that clients may write."""

    def __init__(self, model: type[Base], schema: type[schemas.Schema], *, key: tuple[str, ...]) -> None:
        self.table = model.__tablename__
        self.key = key
        fields = schema().load_fields
        self.columns = tuple(field.attribute or name for name, field in fields.items())
        self.defaults: Mapping[str, Any] = {
            field.attribute or name: field.load_default() if callable(field.load_default) else field.load_default
            for name, field in fields.items()
            if not field.required
        }
        self._model = model

    @cached_property
    def types(self) -> dict[str, str]:
        """The SQL type of each column; text has no length limit, because a cast to one truncates silently."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        return {
            name: "text" if isinstance(column.type, String | Text) else column.type.compile(dialect=dialect)
            for name, column in self._model.__table__.columns.items()
        }

    def is_default(self, values: Mapping[str, Any] | None) -> bool:
        """Return whether the values are all defaults, so that no row is needed."""
        return not values or all(values[name] == default for name, default in self.defaults.items())


EMAIL = ContactTable(models.Email, schemas.EmailSchema, key=("email_id",))
SUB_DOCUMENTS = {
    "amo": ContactTable(models.Amo, schemas.AmoSchema, key=("email_id",)),
    "fxa": ContactTable(models.Fxa, schemas.FxaSchema, key=("email_id",)),
    "mofo": ContactTable(models.Mofo, schemas.MofoSchema, key=("email_id",)),
}
LISTS = {
    "newsletters": ContactTable(models.Newsletter, schemas.NewsletterSchema, key=("email_id", "name")),
    "waitlists": ContactTable(models.WaitlistEntry, schemas.WaitlistSchema, key=("email_id", "name")),
}
CONTACT_TABLES = {**SUB_DOCUMENTS, **LISTS}


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _values(table: ContactTable) -> str:
    return ", ".join(f"%({column})s::{table.types[column]}" for column in table.columns)


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
    return _compact(f"""
        WITH contact AS ({_INSERT_EMAIL} ON CONFLICT DO NOTHING RETURNING email_id, update_timestamp)
        {"".join(f", {name}_written AS ({_insert(CONTACT_TABLES[name])})" for name in parts)}
        SELECT count(*) FROM contact""")


@cache
def replace_parts(parts: tuple[str, ...]) -> str:
    """Return the statement that writes the `parts` of the contact `%(contact)s` and deletes all other parts."""
    tables = {name: CONTACT_TABLES[name] for name in parts}
    return _compact(f"""
        WITH contact AS (
            SELECT email_id, update_timestamp FROM emails WHERE email_id = %(contact)s FOR NO KEY UPDATE)
        {_removals(parts)}
        {"".join(f", {name}_written AS ({_insert(table)} {_on_conflict(table)})" for name, table in tables.items())}
        SELECT""")


def parameter(name: str) -> str:
    """Return the parameter of a part: a prefix for a sub-document, the name of the JSON array for a list."""
    return f"{name}."


def _compact(statement: str) -> str:
    """Collapse white space: psycopg caches the conversion of statements of up to 4,096 characters."""
    return " ".join(statement.split())


def _insert(table: ContactTable) -> str:
    prefix = parameter(table.table)
    if table.table in LISTS:
        record = ", ".join(f'"{column}" {table.types[column]}' for column in table.columns)
        values = ", ".join(f'r."{column}"' for column in table.columns)
        source = f"contact c, json_to_recordset(%({prefix})s) AS r ({record})"
    else:
        values = ", ".join(f"%({prefix}{column})s::{table.types[column]}" for column in table.columns)
        source = "contact c"
    return f"""
        INSERT INTO {table.table} (email_id, {_names(table.columns)}, create_timestamp, update_timestamp)
        SELECT c.email_id, {values}, c.update_timestamp, c.update_timestamp FROM {source}"""


def _on_conflict(table: ContactTable, given: tuple[str, ...] | None = None) -> str:
    changed = tuple(column for column in (table.columns if given is None else given) if column not in table.key)
    return f"""
        ON CONFLICT ({_names(table.key)}) DO UPDATE
        SET {_from_excluded(changed)}update_timestamp = excluded.update_timestamp"""


def _removals(parts: tuple[str, ...]) -> str:
    removals = ""
    for name, table in CONTACT_TABLES.items():
        if name not in parts:
            others = ""
        elif name in LISTS:
            others = f" AND p.name <> ALL (SELECT e ->> 'name' FROM json_array_elements(%({parameter(name)})s) e)"
        else:
            continue
        removals += (
            f", {name}_removed AS (DELETE FROM {table.table} p USING contact c WHERE p.email_id = c.email_id{others})"
        )
    return removals


TAKEN = """
    SELECT CASE WHEN email_id = %(email_id)s THEN 'email_id'
        WHEN lower(primary_email) = lower(%(primary_email)s) THEN 'primary_email' ELSE 'basket_token' END
    FROM emails
    WHERE email_id = %(email_id)s OR lower(primary_email) = lower(%(primary_email)s)
        OR basket_token = %(basket_token)s::text
    LIMIT 1"""

LOCK = "SELECT FROM emails WHERE email_id = %s FOR NO KEY UPDATE"
LOCK_ADDRESS = "SELECT primary_email FROM emails WHERE email_id = %s FOR NO KEY UPDATE"

HAS_WAITLIST = "SELECT true FROM waitlists WHERE email_id = %s AND name = %s"


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
    table = CONTACT_TABLES[name]
    return f"""
        INSERT INTO {table.table} (email_id, {_names(table.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {_values(table)}, e.update_timestamp, e.update_timestamp
        FROM emails e WHERE e.email_id = %(contact)s FOR NO KEY UPDATE {_on_conflict(table, given)}"""


@cache
def update_entry(name: str, given: tuple[str, ...]) -> str:
    """Return the statement that updates an existing entry: values of the columns `given`, then id and name."""
    table = LISTS[name]
    assignments = "".join(f'"{column}" = %s::{table.types[column]}, ' for column in given)
    return f"""
        UPDATE {table.table} s SET {assignments}update_timestamp = e.update_timestamp
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
    table = SUB_DOCUMENTS[name]
    conditions = " AND ".join(
        f'"{column}" IS NOT TRUE' if default is False else f'"{column}" IS NULL'
        for column, default in table.defaults.items()
    )
    return f"DELETE FROM {table.table} WHERE email_id = %s AND {conditions}"
