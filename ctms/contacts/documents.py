"""The SELECT that renders contacts: PostgreSQL builds the JSON text, and the views return it unchanged.

The schemas define the columns and their order, so one list serves the document, its validation and its documentation.
A NULL that no request may send reads as its default. Any other stored value is returned as it is, even an invalid one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import date
from hashlib import blake2b
from operator import itemgetter
from typing import Any
from uuid import UUID

import marshmallow as ma
from psycopg.sql import Literal

from ctms import addresses
from ctms.contacts.fields import Address, Timestamp
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, IDENTITIES, PARTS, SUB_DOCUMENTS
from ctms.contacts.sparse import PART_MEMBERS
from ctms.database.rendering import compact, timestamp


def _expression(alias: str, name: str, field: ma.fields.Field[Any]) -> str:
    column = f'{alias}."{name}"'
    if isinstance(field, Timestamp):
        return f'{timestamp(column)} AS "{name}"'
    default = null_default(field)
    return column if default is None else f'coalesce({column}, {Literal(default).as_string()}) AS "{name}"'


def null_default(field: ma.fields.Field[Any]) -> bool | str | None:
    """Return the value that replaces a NULL in the field's column: its default if requests may not send null."""
    default = field.load_default
    return default if isinstance(default, bool | str) and not field.allow_none else None


def _render(part: Part, members: Collection[str] | None = None) -> str:
    """Return the SQL expression of a part, with all its members or with these."""
    columns = ", ".join(
        _expression(part.alias, name, field)
        for name, field in part.fields.items()
        if members is None or name in members
    )
    if not part.many:
        return f"(SELECT g FROM (SELECT {columns}) g)"
    return (
        f'coalesce((SELECT json_agg(l ORDER BY l.name COLLATE "C") FROM'
        f" (SELECT {columns} FROM {part.table} {part.alias} WHERE {part.alias}.email_id = e.email_id) l), '[]')"
    )


# Earlier services stored escapes that PostgreSQL keeps as text but cannot parse: U+0000 and lone surrogates.
_UNREADABLE = (
    r"\\u0000"
    r"|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])"
    r"|(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}"
)


def readable_json(column: str) -> str:
    """Return SQL for a JSON column that is NULL where PostgreSQL cannot parse an escape in it."""
    return (
        rf"CASE WHEN strpos({column}::text, '\u') = 0"  # the usual case, checked cheaply
        rf" OR replace({column}::text, '\\', '/') !~* '{_UNREADABLE}' THEN {column} END"  # \\u is an escaped backslash
    )


_OLD_WAITLISTS = compact(f"""
    LATERAL (
        SELECT
            (array_agg(w.fields) FILTER (WHERE w.name = 'vpn'))[1] AS vpn,
            (array_agg(w.fields -> 'geo' ORDER BY w.name COLLATE "C") FILTER (
                WHERE w.name <> 'vpn' AND json_typeof(w.fields -> 'geo') <> 'null'))[1] AS relay_geo
        FROM (
            SELECT w.name, {readable_json("w.fields")} AS fields FROM waitlists w
            WHERE w.email_id = e.email_id AND w.subscribed AND (w.name = 'vpn' OR starts_with(w.name, 'relay'))
        ) w
    ) old""")

_LEGACY = {
    "vpn_waitlist": "(SELECT v FROM (SELECT old.vpn -> 'geo' AS geo, old.vpn -> 'platform' AS platform) v)",
    "relay_waitlist": "(SELECT r FROM (SELECT old.relay_geo AS geo) r)",
}
_BODY = {**{name: _render(part) for name, part in sorted(PARTS.items())}, **_LEGACY}

FROM_CONTACT = " ".join(
    f"LEFT JOIN {part.table} {part.alias} ON {part.alias}.email_id = e.email_id" for part in SUB_DOCUMENTS.values()
)


def _document(body: Mapping[str, str]) -> str:
    members = ", ".join(f"{sql} AS {name}" for name, sql in body.items())
    old = f"{_OLD_WAITLISTS}, " if body.keys() & _LEGACY.keys() else ""
    return f"(SELECT row_to_json(d)::text FROM {old}LATERAL (SELECT {members}) d)"


DOCUMENT = _document(_BODY)
"""An SQL expression: the document of the contact in row `e` of `emails`, for use with `FROM_CONTACT`."""

MEMBERS = (*_BODY, *PART_MEMBERS)
"""The names of what a sparse document may have: parts, and members of parts."""


def sparse_document(names: Collection[str]) -> str:
    """Return an SQL expression as `DOCUMENT`, of a document with these of `MEMBERS` only.

    It always has the id of the contact, and entries always have their names.
    """
    wanted: dict[str, set[str] | None] = {EMAIL.name: {"email_id"}}
    for name in names:
        member, _, column = name.partition(".")
        chosen = wanted.setdefault(member, {"name"} if member in PARTS and PARTS[member].many else set())
        if not column:
            wanted[member] = None
        elif chosen is not None:
            chosen.add(column)
    return _document(
        {
            name: sql if name in _LEGACY else _render(PARTS[name], wanted[name])
            for name, sql in _BODY.items()
            if name in wanted
        }
    )


_NAMED = ", ".join(one.sql if one.column == name else f"{one.sql} AS {name}" for name, one in IDENTITIES.items())
IDENTITY = f"(SELECT row_to_json(i)::text FROM (SELECT {_NAMED}) i)"
"""An SQL expression: the identities of the contact in row `e` of `emails`, for use with `FROM_CONTACT`."""


def with_status(document: str) -> str:
    """Add `"status": "ok"` to a document, for responses about one contact by its id."""
    return f'{document[:-1]},"status":"ok"}}'


def etag(body: bytes) -> str:
    """Return the entity tag of a contact's state: the hash of its document `with_status`."""
    return blake2b(body, digest_size=16).hexdigest()


def needs_strong_tag(name: str) -> str:
    """Return the message for a weak tag in a header or member with this name: it never matches (RFC 9110, 13.1.1)."""
    return f'{name} needs a strong tag: send the ETag without W/, as in "5f3a"'


def is_same_contact(document: str, contact: Mapping[str, Any]) -> bool:
    """Return whether the stored `document` has exactly the values of `contact`, as loaded by `ContactSchema`."""
    stored = json.loads(document)
    for name, part in PARTS.items():
        given = sorted(contact[name] or (), key=itemgetter("name")) if part.many else [contact[name] or {}]
        found = stored[name] if part.many else [stored[name]]
        if len(given) != len(found) or not all(_is_same(part, *both) for both in zip(given, found, strict=True)):
            return False
    return True


def _is_same(part: Part, given: Mapping[str, Any], stored: Mapping[str, Any]) -> bool:
    return all(
        is_equal(part.fields[column], given.get(column, part.defaults.get(column)), stored[column])
        for column in part.columns
        if column != "email_id"
    )


def is_equal(field: ma.fields.Field[Any], value: Any, stored: Any) -> bool:
    """Return whether the stored value equals this one; an address may be stored in a raw form."""
    if isinstance(value, dict):  # in Python, 1 equals true
        return json.dumps(value, sort_keys=True) == json.dumps(stored, sort_keys=True)
    if _json_value(value) == stored:
        return True
    return isinstance(field, Address) and isinstance(stored, str) and addresses.is_normal_form(value, stored)


def _json_value(value: Any) -> Any:
    return str(value) if isinstance(value, date | UUID) else value


def json_array(documents: list[str]) -> str:
    """Return the documents as a JSON array."""
    return f"[{','.join(documents)}]"
