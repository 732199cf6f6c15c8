"""What is stored here about the person of an address: contacts with their history, a suppression, erasures.

Everything is read from the tables, not from the contact's document: each column is shown as it is stored, also one that
the API leaves out. Results are JSON text, because Python cannot hold every number that PostgreSQL's `json` can.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import DateTime, FromClause, Table

from ctms.addresses import spellings
from ctms.contacts import merged_addresses
from ctms.contacts.parts import Identity, Part
from ctms.contacts.registry import IDENTITIES, PARTS
from ctms.contacts.stored_documents import ContactDocument
from ctms.database.engine import Model
from ctms.database.pool import Connection
from ctms.database.rendering import timestamp
from ctms.erasure import records
from ctms.history import events
from ctms.subject_access.models import AccessRequestContact
from ctms.suppression.check import is_suppressed
from ctms.suppression.fingerprints import fingerprints

_CONTACT = "emails.email_id"
MERGED_ADDRESS = "merged_address"
"""The name by which a report calls an address that the contact lost in a merge."""


@dataclass(frozen=True)
class PersonalData:
    """What is stored: JSON text for each contact, and JSON text for what belongs to no contact.

    The contacts that have the address as their own come first.
    """

    contacts: Mapping[UUID, str]
    result: str


def _rows(table: FromClause) -> str:
    """Return SQL, a table expression `r`: the contact's rows in a table, with every column."""
    columns = ", ".join(
        f'{timestamp(f"t.{column.name}")} AS "{column.name}"'
        if isinstance(column.type, DateTime)
        else f't."{column.name}"'
        for column in table.columns
    )
    return f"(SELECT {columns} FROM {table} t WHERE t.email_id = e.email_id) r"


def _stored(part: Part) -> str:
    """Return SQL that renders the contact's rows of a part."""
    if not part.many:
        return f"(SELECT row_to_json(r) FROM {_rows(part.table)})"
    return f"""coalesce((SELECT json_agg(r ORDER BY r.name COLLATE "C") FROM {_rows(part.table)}), '[]')"""


def record_tables() -> list[Table]:
    """Return the tables that are no parts, but whose rows belong to a contact by a foreign key.

    Reports, and documents rendered from the parts, are not among them.
    """
    others = {
        *(part.table.name for part in PARTS.values()),
        AccessRequestContact.__tablename__,
        ContactDocument.__tablename__,
    }
    return [
        table
        for name, table in sorted(Model.metadata.tables.items())
        if name not in others and any(key.target_fullname == _CONTACT for key in table.foreign_keys)
    ]


@cache
def _content() -> str:
    """Return the query for the contents of contacts; cached once all models are imported."""
    data = ", ".join(f"'{name}', {_stored(part)}" for name, part in PARTS.items())
    records = ", ".join(
        f"'{table.name}', coalesce((SELECT json_agg(r) FROM {_rows(table)}), '[]')" for table in record_tables()
    )
    return f"""
        SELECT e.email_id, json_build_object(
            'email_id', e.email_id, 'found_by', f.names::json, 'data', json_build_object({data}),
            'records', json_build_object({records}))::text
        FROM unnest(%s::uuid[], %s::text[]) WITH ORDINALITY AS f (email_id, names, position)
        JOIN emails e ON e.email_id = f.email_id ORDER BY f.position"""


# An erasure waits until this transaction has ended, or this statement until the erasure has.
_LOCK = "SELECT email_id FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR KEY SHARE"
_NOW = f"SELECT {timestamp('statement_timestamp()')}"

_SHOWN = ("id", "requested_at", "origin", "forget", "status")
"""The members of an erasure's record that are about the person; the others are counts of everybody in it."""


def find(connection: Connection, address: str) -> PersonalData:
    """Return what is stored about the person of an address, in any spelling; inside a transaction.

    A contact is found by any identity that has the address, and is locked against deletion.
    """
    wanted = sorted(_carriers(connection, address))
    locked = {email_id for (email_id,) in connection.execute(_LOCK, (wanted,)).fetchall()}
    # Again, because a contact may have changed while its lock was awaited.
    found = {one: names for one, names in _carriers(connection, address).items() if one in locked}
    values = (list(found), [json.dumps(names) for names in found.values()])
    contents: dict[UUID, str] = dict(connection.execute(_content(), values).fetchall())
    history = events.of_contacts(connection, list(contents))
    row = connection.execute(_NOW).fetchone()
    assert row is not None  # noqa: S101  it selects no table
    known = fingerprints().available
    result = {
        "created_at": row[0],
        "suppressed": is_suppressed(connection, address) if known else None,
        "erasures": _erasures(connection, address) if known else None,
    }
    contacts = {one: f'{content[:-1]},"history":[{",".join(history[one])}]}}' for one, content in contents.items()}
    return PersonalData(contacts, json.dumps(result))


def _carriers(connection: Connection, address: str) -> dict[UUID, list[str]]:
    """Return the contacts with the address, and the names of the identities that have it.

    A contact that lost it in a merge has it as `MERGED_ADDRESS`.
    """
    spelt = list(spellings(address))
    found: dict[UUID, list[str]] = defaultdict(list)
    for name, identity in IDENTITIES.items():
        if not identity.has_uuid_column:
            for (email_id,) in connection.execute(*_matching(identity, spelt)).fetchall():
                found[email_id].append(name)
    for email_id in merged_addresses.find(connection, address):
        found[email_id].append(MERGED_ADDRESS)
    return found


def _matching(identity: Identity, spelt: list[str]) -> tuple[str, list[Any]]:
    """Return the query for the contacts with one of the spellings in an identity, by its index, and its values."""
    part = identity.part
    query = f"SELECT {part.alias}.email_id FROM {part.table} {part.alias} WHERE "
    if identity.is_address:
        return f"{query}{identity.match_condition(len(spelt))}", spelt
    return f"{query}{identity.sql} = ANY(%s)", [spelt]  # an adopted database may have an address in any of them


def _erasures(connection: Connection, address: str) -> list[dict[str, Any]]:
    return [{name: one[name] for name in _SHOWN} for one in records.of_address(connection, address)]
