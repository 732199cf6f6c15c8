"""Write the rows of many contacts, part by part."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

from ctms.batches import statements
from ctms.batches.plan import Change
from ctms.contacts.registry import LISTS, SUB_DOCUMENTS
from ctms.contacts.schemas import DELETE, UNSUBSCRIBE
from ctms.database.pool import Connection
from ctms.history.context import recorded_evidence_of_contacts

MAX_EVIDENCE = 100
"""Number of entries whose evidence is set at once: the trigger of each searches all of it."""

Row = dict[str, Any]


def write_rows(connection: Connection, changes: Sequence[Change]) -> int:
    """Write the changes of locked or new contacts, each of another contact; return how many new ones were inserted.

    In pipeline mode, all statements are sent together.
    """
    new = [_row(change.email_id, change.email) for change in changes if change.is_new]
    old = [_row(change.email_id, change.email) for change in changes if not change.is_new]
    inserted = connection.execute(statements.INSERT_EMAILS, (_json(new),)) if new else None
    if old:
        connection.execute(statements.UPDATE_EMAILS, (_json(old),))
    for name in SUB_DOCUMENTS:
        _write_groups(connection, name, changes)
    for name in LISTS:
        _write_entries(connection, name, changes)
    raise_errors(connection)
    return inserted.rowcount if inserted else 0


def raise_errors(connection: Connection) -> None:
    """Raise the error of an earlier statement, which in pipeline mode arrives with a later result."""
    connection.execute("SELECT").fetchall()


def _write_groups(connection: Connection, name: str, changes: Iterable[Change]) -> None:
    part = SUB_DOCUMENTS[name]
    given = [(change, change.groups[name]) for change in changes if name in change.groups]
    rows = [_row(change.email_id, group) for change, group in given if isinstance(group, Mapping)]
    deleted = [change.email_id for change, group in given if group == DELETE]
    defaults = [
        change.email_id
        for change, group in given
        if isinstance(group, Mapping) and all(value == part.defaults[column] for column, value in group.items())
    ]
    if rows:
        connection.execute(statements.upsert(name), (_json(rows),))
    if deleted:
        connection.execute(statements.delete(name), (deleted,))
    if defaults:
        connection.execute(statements.delete_default(name), (defaults,))


def _write_entries(connection: Connection, name: str, changes: Iterable[Change]) -> None:
    unsubscribed = [change.email_id for change in changes if change.lists.get(name) == UNSUBSCRIBE]
    rows: list[Row] = []
    proven: list[tuple[Row, Any]] = []
    for email_id, entry in _entries(name, changes):
        row = _row(email_id, {column: value for column, value in entry.items() if column in LISTS[name].columns})
        if evidence := entry.get("evidence"):
            proven.append((row, evidence))
        else:
            rows.append(row)
    if unsubscribed:
        connection.execute(statements.unsubscribe(name), (unsubscribed,))
    if rows:
        connection.execute(statements.upsert(name), (_json(rows),))
    for start in range(0, len(proven), MAX_EVIDENCE):
        some = proven[start : start + MAX_EVIDENCE]
        with _evidence(connection, name, some):
            connection.execute(statements.upsert(name), (_json([row for row, _ in some]),))


def _entries(name: str, changes: Iterable[Change]) -> Iterator[tuple[UUID, Mapping[str, Any]]]:
    for change in changes:
        entries = change.lists.get(name, ())
        if entries != UNSUBSCRIBE:
            for entry in entries:
                assert isinstance(entry, Mapping)  # noqa: S101
                yield change.email_id, entry


def _evidence(connection: Connection, name: str, proven: Sequence[tuple[Row, Any]]) -> AbstractContextManager[None]:
    contacts: dict[UUID, dict[str, Any]] = defaultdict(dict)
    for row, evidence in proven:
        contacts[row["contact"]][row["name"]] = evidence
    return recorded_evidence_of_contacts(connection, {name: contacts})


def _row(email_id: UUID, given: Mapping[str, Any]) -> Row:
    return {"contact": email_id, "given": list(given), **given}


def _json(rows: Sequence[Row]) -> str:
    return json.dumps(rows, default=str)
