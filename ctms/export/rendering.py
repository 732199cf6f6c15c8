"""The statements that copy the contacts of a slice, a range of ids, to the client.

The whole document of a contact is that of the API, stored or rendered (`ctms.contacts.stored_documents`). For chosen
fields they read each table once, by the range of ids, and join, which is faster than to look up the entries of each
contact. A test compares the values of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg.sql import Literal

from ctms.contacts import fields
from ctms.contacts.documents import null_default
from ctms.contacts.parts import Part
from ctms.contacts.registry import PARTS
from ctms.contacts.sparse import Selection
from ctms.database.rendering import timestamp
from ctms.search.conditions import Condition

_IDS = 2**128

QUOTE = b"\x01"
"""Encloses a document with line breaks, which only JSON that was stored with some has."""

# These characters are never in JSON text, which escapes control characters: other documents are sent as they are.
_AS_IT_IS = r"FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01'"


@dataclass(frozen=True)
class Slice:
    """The contacts with ids from `first` to just before `until`; None: to the last one."""

    first: UUID
    until: UUID | None

    def holds(self, alias: str) -> str:
        """Return the SQL condition that a row belongs to a contact of the slice."""
        first = f"{alias}.email_id >= '{self.first}'"
        return first if self.until is None else f"{first} AND {alias}.email_id < '{self.until}'"


def make_slices(number: int) -> list[Slice]:
    """Cut the space of ids into slices of the same width, which random ids fill evenly."""
    firsts = [UUID(int=_IDS * one // number) for one in range(number)]
    return [Slice(*both) for both in zip(firsts, [*firsts[1:], None], strict=True)]


@dataclass(frozen=True)
class CopyStatement:
    """A statement that copies the selected fields of contacts that match a condition (None: all).

    As `csv`, it sends the columns of `column_names`, lists as JSON; else a JSON document per line: `document`, an SQL
    expression for a row `contact` of `emails`, or one with the selected fields. `for_arrow`, an object of any members
    is text, and a date is the number of days since 1970.
    """

    selection: Selection
    condition: Condition | None = None
    values: Sequence[Any] = ()
    csv: bool = False
    document: str | None = None
    for_arrow: bool = False

    def build(self, part: Slice) -> str:
        """Return the SQL for a slice; its parameters are the `values`."""
        matching = ""
        if self.condition is not None:
            # The subquery with OFFSET 0 is planned for a single contact: it looks entries up in their indexes, where a
            # plan for all contacts of the slice could read the whole tables of newsletters and waitlists.
            matching = f" CROSS JOIN LATERAL (SELECT WHERE {self.condition.sql} OFFSET 0) matching"
        source = f"emails e{matching}"
        if self.document is not None:
            lateral = "CROSS JOIN LATERAL (SELECT e.email_id, e.update_timestamp) contact"
            return (
                f"COPY (SELECT {self.document} FROM {source} {lateral} WHERE {part.holds('e')}) TO STDOUT ({_AS_IT_IS})"
            )
        joins = "".join(
            f" LEFT JOIN ({self._rows(PARTS[name], part)}) {_alias(PARTS[name])}"
            f" ON {_alias(PARTS[name])}.email_id = e.email_id"
            for name in self.selection
            if not PARTS[name].required
        )
        options = "FORMAT csv" if self.csv else _AS_IT_IS
        rendered = self._columns() if self.csv else self._document()
        query = f"SELECT {rendered} FROM {source}{joins} WHERE {part.holds('e')}"
        return f"COPY ({query}) TO STDOUT ({options})"

    def _document(self) -> str:
        members = {name: self._value(PARTS[name]) for name in self.selection}
        # Text is appended to text: JSON functions would put line breaks between the entries of lists.
        begun = [
            f"""'{"," if number else "{"}"{name}":' || {sql}""" for number, (name, sql) in enumerate(members.items())
        ]
        return " || ".join([*begun, "'}'"])

    def _columns(self) -> str:
        columns: list[str] = []
        for name, members in self.selection.items():
            part = PARTS[name]
            columns += [self._value(part)] if part.many else (_text(part, part.alias, member) for member in members)
        return ", ".join(columns)

    def _value(self, part: Part) -> str:
        """Return the SQL of a part's JSON text."""
        if part.many:
            return f"coalesce('[' || {_alias(part)}.entries || ']', '[]')"
        return _object(self._members(part, part.alias))

    def _rows(self, part: Part, where: Slice) -> str:
        """Return the query for a part's rows of a slice: one per contact."""
        if not part.many:
            return f"SELECT * FROM {part.table} r WHERE {where.holds('r')}"
        entry = _object(self._members(part, "r"))
        return (
            f"SELECT r.email_id, string_agg({entry}, ',' ORDER BY r.name COLLATE \"C\") AS entries"
            f" FROM {part.table} r WHERE {where.holds('r')} GROUP BY r.email_id"
        )

    def _members(self, part: Part, alias: str) -> str:
        return ", ".join(
            f'{_json(part, alias, name, for_arrow=self.for_arrow)} AS "{name}"' for name in self.selection[part.name]
        )


def column_names(selection: Selection) -> list[str]:
    """Return the names of the columns of CSV: a list is one, a sub-document has one for each of its members."""
    return [
        column
        for name, members in selection.items()
        for column in ([name] if PARTS[name].many else [f"{name}.{member}" for member in members])
    ]


def _object(members: str) -> str:
    """Return the SQL of a JSON object with these members."""
    return f"(SELECT row_to_json(o)::text FROM (SELECT {members}) o)"


def join_documents(rows: Sequence[bytes]) -> bytes:
    """Return documents, as the statement sends them, as lines."""
    text = b"".join(rows)
    return b"".join(map(_one_line, rows)) if QUOTE in text else text


def _one_line(row: bytes) -> bytes:
    return row[1:-2].replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" if row.startswith(QUOTE) else row


def _alias(part: Part) -> str:
    return part.name if part.many else part.alias


def _stored(part: Part, alias: str, name: str) -> str:
    """Return the SQL of a column, in which a NULL that no request may send is its default."""
    default = null_default(part.fields[name])
    column = f'{alias}."{name}"'
    return column if default is None else f"coalesce({column}, {Literal(default).as_string()})"


def _json(part: Part, alias: str, name: str, *, for_arrow: bool) -> str:
    """Return the SQL of a column as a member of a document."""
    column = _stored(part, alias, name)
    match part.fields[name]:
        case fields.Timestamp():
            return timestamp(column)
        case fields.Date() if for_arrow:
            return f"CASE WHEN isfinite({column}) THEN {column} - DATE '1970-01-01' END"
        case fields.Object() if for_arrow:
            return f"{column}::text"
    return column


def _text(part: Part, alias: str, name: str) -> str:
    """Return the SQL of a column as a value of CSV."""
    column = _json(part, alias, name, for_arrow=False)
    return f"{column}::text" if isinstance(part.fields[name], fields.Boolean) else column
