"""The SQL of the writers. Columns, types and defaults come from the schemas and the models.

A statement that writes children takes the contact's row of `emails` as its source: without that row it writes
nothing, and with it every child carries the contact's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, cached_property
from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.dialects import postgresql

from ctms.contacts import models, schemas
from ctms.contacts.documents import FROM_CONTACT, IDENTITY
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

CREATE_EMAIL = _INSERT_EMAIL

REPLACE_EMAIL = f"""{_INSERT_EMAIL}
    ON CONFLICT (email_id) DO UPDATE SET {_from_excluded(EMAIL.columns[1:])}update_timestamp = clock_timestamp()"""

LOCK = "SELECT FROM emails WHERE email_id = %s FOR NO KEY UPDATE"
LOCK_ADDRESS = "SELECT primary_email FROM emails WHERE email_id = %s FOR NO KEY UPDATE"

LOCK_BY_ADDRESS = f"""
    SELECT e.email_id, {IDENTITY} FROM emails e {FROM_CONTACT}
    WHERE lower(e.primary_email) = lower(%s) FOR UPDATE OF e"""

LOCK_IDS_BY_ADDRESS = "SELECT email_id FROM emails WHERE lower(primary_email) = lower(%s) FOR UPDATE"

DELETE_CONTACTS = "DELETE FROM emails WHERE email_id = ANY(%s)"


@cache
def update_email(given: tuple[str, ...]) -> str:
    """Change the columns `given` (values in their order, then the id); the contact's time always moves."""
    assignments = "".join(f'"{column}" = %s::{EMAIL.types[column]}, ' for column in given)
    return f"UPDATE emails SET {assignments}update_timestamp = clock_timestamp() WHERE email_id = %s"


@cache
def upsert(name: str, given: tuple[str, ...]) -> str:
    """Write one row of a part; where it exists, only the columns `given` change."""
    part = PARTS[name]
    changed = tuple(column for column in given if column not in part.key)
    return f"""
        INSERT INTO {part.table} (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {_values(part)}, e.update_timestamp, e.update_timestamp
        FROM emails e WHERE e.email_id = %(contact)s
        ON CONFLICT ({_names(part.key)}) DO UPDATE
        SET {_from_excluded(changed)}update_timestamp = excluded.update_timestamp"""


@cache
def upsert_list(name: str) -> str:
    """Write whole entries, a JSON array of objects, then the id."""
    part = LISTS[name]
    record = ", ".join(f'"{column}" {part.types[column]}' for column in part.columns)
    return f"""
        INSERT INTO {part.table} (email_id, {_names(part.columns)}, create_timestamp, update_timestamp)
        SELECT e.email_id, {", ".join(f'r."{column}"' for column in part.columns)},
            e.update_timestamp, e.update_timestamp
        FROM json_to_recordset(%s) AS r ({record}), emails e WHERE e.email_id = %s
        ON CONFLICT ({_names(part.key)}) DO UPDATE
        SET {_from_excluded(tuple(column for column in part.columns if column != "name"))}
            update_timestamp = excluded.update_timestamp"""


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


@cache
def delete_others(name: str) -> str:
    """Remove the entries whose names are not given: id, then names."""
    return f"DELETE FROM {LISTS[name].table} WHERE email_id = %s AND name <> ALL(%s)"
