"""The SQL of the writers. Columns, types and defaults come from the schemas and the models.

A statement that writes children takes the contact's row of `emails` as its source: without that row it writes
nothing, and with it every child carries the contact's time. It locks the row: one that has come since the statement
before would else be gone again before the children are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.dialects import postgresql

from ctms.addresses import match_condition
from ctms.contacts import models, schemas
from ctms.database import Base


class Part:
    """One of the tables that a contact is made of, with the columns that clients may write."""

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
        """The SQL type of each column, text without its limit: a cast to the limit would cut silently."""
        dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
        return {
            name: "text" if isinstance(column.type, String | Text) else column.type.compile(dialect=dialect)
            for name, column in self._model.__table__.columns.items()
        }

    def says_nothing(self, values: Mapping[str, Any] | None) -> bool:
        """True when there is nothing but defaults to store."""
        return not values or all(values[name] == default for name, default in self.defaults.items())


EMAIL = Part(models.Email, schemas.EmailSchema, key=("email_id",))
GROUPS = {
    "amo": Part(models.Amo, schemas.AmoSchema, key=("email_id",)),
    "fxa": Part(models.Fxa, schemas.FxaSchema, key=("email_id",)),
    "mofo": Part(models.Mofo, schemas.MofoSchema, key=("email_id",)),
}
LISTS = {
    "newsletters": Part(models.Newsletter, schemas.NewsletterSchema, key=("email_id", "name")),
    "waitlists": Part(models.Waitlist, schemas.WaitlistSchema, key=("email_id", "name")),
}
PARTS = {**GROUPS, **LISTS}


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
"""Where any identity is taken, by a contact committed or about to be, nothing happens."""

OVERWRITE_EMAIL = f"""
    UPDATE emails SET {"".join(f'"{name}" = %({name})s::{EMAIL.types[name]}, ' for name in EMAIL.columns[1:])}
        update_timestamp = clock_timestamp()
    WHERE email_id = %(email_id)s AND xmin <> pg_current_xact_id()::xid"""
"""Not where this transaction has just made the row."""


@cache
def create(parts: tuple[str, ...]) -> str:
    """Create a contact with its `parts` in one statement; selects how many were: none where an identity is taken."""
    return _compact(f"""
        WITH contact AS ({_INSERT_EMAIL} ON CONFLICT DO NOTHING RETURNING email_id, update_timestamp)
        {"".join(f", {name}_made AS ({_insert(PARTS[name])})" for name in parts)}
        SELECT count(*) FROM contact""")


@cache
def replace_parts(parts: tuple[str, ...]) -> str:
    """Write the `parts` of the contact `%(contact)s`, and remove all others, in one statement."""
    return _compact(f"""
        WITH contact AS (
            SELECT email_id, update_timestamp FROM emails WHERE email_id = %(contact)s FOR NO KEY UPDATE)
        {_removals(parts)}
        {"".join(f", {name}_made AS ({_insert(PARTS[name])} {_on_conflict(PARTS[name])})" for name in parts)}
        SELECT""")


def parameter(name: str) -> str:
    """Return the name of the parameter that holds a part: of a group a prefix, of a list its JSON array."""
    return f"{name}."


def _compact(statement: str) -> str:
    """Fold white space: psycopg remembers how to send a statement of up to 4,096 characters."""
    return " ".join(statement.split())


def _insert(part: Part) -> str:
    prefix = parameter(part.table)
    if part.table in LISTS:
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
    for name, part in PARTS.items():
        if name not in parts:
            others = ""
        elif name in LISTS:
            others = f" AND p.name <> ALL (SELECT e ->> 'name' FROM json_array_elements(%({parameter(name)})s) e)"
        else:
            continue
        removals += (
            f", {name}_removed AS (DELETE FROM {part.table} p USING contact c WHERE p.email_id = c.email_id{others})"
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
    """Find the contacts with an address in one of `count` spellings."""
    return f"SELECT email_id FROM emails WHERE {match_condition('primary_email', count)}"


@cache
def update_email(given: tuple[str, ...]) -> str:
    """Change the columns `given` (values in their order, then the id); the contact's time always moves."""
    assignments = "".join(f'"{column}" = %s::{EMAIL.types[column]}, ' for column in given)
    return f"UPDATE emails SET {assignments}update_timestamp = clock_timestamp() WHERE email_id = %s"


@cache
def upsert(name: str, given: tuple[str, ...]) -> str:
    """Write one row of a part; where it exists, only the columns `given` change."""
    part = PARTS[name]
    return f"""
        INSERT INTO {part.table} (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {_values(part)}, e.update_timestamp, e.update_timestamp
        FROM emails e WHERE e.email_id = %(contact)s FOR NO KEY UPDATE {_on_conflict(part, given)}"""


@cache
def update_entry(name: str, given: tuple[str, ...]) -> str:
    """Change an entry that exists: values of the columns `given` in their order, then id and name."""
    part = LISTS[name]
    assignments = "".join(f'"{column}" = %s::{part.types[column]}, ' for column in given)
    return f"""
        UPDATE {part.table} s SET {assignments}update_timestamp = e.update_timestamp
        FROM emails e WHERE e.email_id = s.email_id AND s.email_id = %s AND s.name = %s"""


@cache
def unsubscribe(name: str) -> str:
    """Leave every newsletter or waitlist that the contact is subscribed to."""
    return f"""
        UPDATE {LISTS[name].table} s SET subscribed = false, update_timestamp = e.update_timestamp
        FROM emails e WHERE e.email_id = s.email_id AND s.email_id = %s AND s.subscribed IS DISTINCT FROM false"""


@cache
def delete(name: str) -> str:
    """Remove a group."""
    return f"DELETE FROM {GROUPS[name].table} WHERE email_id = %s"


@cache
def delete_default(name: str) -> str:
    """Remove a group that has come to say nothing."""
    part = GROUPS[name]
    conditions = " AND ".join(
        f'"{column}" IS NOT TRUE' if default is False else f'"{column}" IS NULL'
        for column, default in part.defaults.items()
    )
    return f"DELETE FROM {part.table} WHERE email_id = %s AND {conditions}"
