"""Rows that are contacts already: the documents of our own exports, in NDJSON, Parquet or CSV, need no map."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ctms.batches.items import CREATE
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, LISTS, PARTS
from ctms.imports.mapping import ADDRESS, Item, Row, RowError

_ID = "email_id"


class DocumentMap:
    """The map of documents: their parts, without what cannot be written, such as timestamps.

    `update` and `upsert` find the contact by its `email_id`, or if it has none by its address.
    """

    def key(self, row: Row) -> str | None:
        """Return the value of the identity, None if the row has none. Rows of one contact have one key."""
        email = row.get(EMAIL.name)
        found = email.get(_ID) or email.get(ADDRESS) if isinstance(email, Mapping) else None
        return found if isinstance(found, str) else None

    def item(self, row: Row, mode: str) -> Item:
        """Return the item of a batch. Raises `RowError`."""
        contact = {name: row[name] for name in PARTS if row.get(name) is not None}
        for entry in row.get("waitlists") or ():
            if isinstance(entry, dict) and isinstance(entry.get("fields"), str):  # of Parquet
                entry["fields"] = _parse(entry["fields"], "waitlists")
        if mode == CREATE:
            return {"mode": mode, "contact": contact}
        email = contact.get(EMAIL.name)
        if not isinstance(email, dict) or not (email.get(_ID) or email.get(ADDRESS)):
            raise RowError((EMAIL.name, _ID), "Field required")
        if email.get(_ID):
            return {"mode": mode, "match": {_ID: email[_ID]}, "contact": contact}
        contact[EMAIL.name] = {name: value for name, value in email.items() if name != ADDRESS}
        return {"mode": mode, "match": {ADDRESS: email[ADDRESS]}, "contact": contact}


class ExportedColumns(DocumentMap):
    """The map of the columns of an exported CSV file: a member is a column, a list is JSON.

    An empty cell is null, where the member may be null, otherwise an empty text.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._members: list[tuple[str, str, str, Any]] = []
        self._lists = [name for name in columns if name in LISTS]
        for column in columns:
            part, _, member = column.partition(".")
            if part in PARTS and member in PARTS[part].columns:
                field = PARTS[part].fields[member]
                self._members.append((column, part, member, None if field.allow_none else ""))

    @staticmethod
    def is_exported(columns: Sequence[str]) -> bool:
        """Return whether these are columns of an export, with at least an identity of the contact."""
        known = all(_is_column(PARTS, name) for name in columns)
        return known and not {"email.email_id", "email.primary_email"}.isdisjoint(columns)

    def key(self, row: Row) -> str | None:
        """Return the value of the identity, None if the row has none."""
        return row.get("email.email_id") or row.get("email.primary_email") or None

    def item(self, row: Row, mode: str) -> Item:
        """Return the item of a batch. Raises `RowError`."""
        document: dict[str, Any] = {}
        for column, part, member, empty in self._members:
            document.setdefault(part, {})[member] = row.get(column) or empty
        for name in self._lists:
            if text := row.get(name):
                document[name] = _parse(text, name)
        return super().item(document, mode)


def _is_column(parts: Mapping[str, Part], name: str) -> bool:
    part, _, member = name.partition(".")
    return part in LISTS if not member else part in parts and member in parts[part].fields


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError((place,), "Input should be JSON") from None
