"""Merge a duplicate contact, the source, into another one, the target.

As in `commands`, everything runs on the caller's connection, inside the caller's transaction. Both contacts are locked
in the order of their ids, which prevents deadlocks between merges, and with transactions that delete many.

An entry of a list keeps the time of its decision (`update_timestamp`), unlike in other writes: the next merge must be
able to compare it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from uuid import UUID

from psycopg.types.json import Json

from ctms.contacts import merged_addresses, removal, statements
from ctms.contacts.documents import FROM_CONTACT
from ctms.contacts.merge_rules import Decision, MergedGroup, MergePlan, Row, StoredContact, plan_merge
from ctms.contacts.parts import Part
from ctms.contacts.registry import ADDRESSES, EMAIL, LISTS, PARTS, SUB_DOCUMENTS
from ctms.contacts.stored_documents import store_written
from ctms.contacts.tombstones import unknown_contact
from ctms.database.pool import Connection
from ctms.errors import Invalid, Unavailable
from ctms.history import merges
from ctms.history.context import recorded_evidence
from ctms.outbox import deletions
from ctms.outbox.changes import outbox
from ctms.outbox.known import find_known
from ctms.outbox.lanes import BACKEND
from ctms.suppression.check import SuppressionCheck

SAME = {"loc": ["body", "from"], "msg": "A contact cannot be merged into itself", "type": "same_contact"}

BATCH = 100
"""Number of entries whose evidence is set at once: each of their triggers parses all of it."""


@dataclass(frozen=True)
class LockedPair:
    """The target and the source of a merge, both locked; `check` is that of the addresses which may move."""

    target: UUID
    source: UUID
    check: SuppressionCheck


@dataclass(frozen=True)
class MergeResult:
    """The document of the merged contact, and the plan by which it came about."""

    document: str
    plan: MergePlan


_OTHER_ADDRESSES = list(ADDRESSES)[1:]
_READ_ADDRESSES = f"""
    SELECT e.email_id, {", ".join(ADDRESSES[name].sql for name in _OTHER_ADDRESSES)}
    FROM emails e {FROM_CONTACT} WHERE e.email_id = ANY(%s)"""

# Those that were merged into the source follow: its tombstone is deleted when its id is used again.
_MARK = "UPDATE contact_tombstones SET merged_into = %(target)s WHERE email_id = %(source)s OR merged_into = %(source)s"


def lock(connection: Connection, target: UUID, source: UUID) -> LockedPair:
    """Lock both contacts until the transaction ends.

    Raises `Invalid` if they are the same, `NotFound` if one does not exist, and `Unavailable` if an address of the
    source was changed meanwhile.
    """
    if target == source:
        raise Invalid([SAME])
    # Before the lock, as `SuppressionCheck` requires; what it has not checked cannot move.
    rows = connection.execute(_READ_ADDRESSES, ([target, source],)).fetchall()
    before = {row[0]: dict(zip(_OTHER_ADDRESSES, row[1:], strict=True)) for row in rows}
    checked = _moving(before.get(target, {}), before.get(source, {}))
    check = SuppressionCheck(connection, *sorted(checked))
    locked = {one.email_id: one.addresses for one in removal.lock_ids(connection, [target, source])}
    if target not in locked:
        raise unknown_contact(connection, target)
    if source not in locked:
        raise unknown_contact(connection, source, field="from")
    if not _moving(locked[target], locked[source]) <= checked:
        raise Unavailable("the contact is being changed")
    return LockedPair(target, source, check)


def merge(connection: Connection, pair: LockedPair) -> MergeResult:
    """Merge the source into the target: `merge_rules` decide which values count. The source is deleted.

    The caller becomes the actor of the events that result. Backends receive the deletion of the source and the change
    of the target; deletion handlers are not called, since the person is still known. Raises `Forbidden` when an account
    address that moves is suppressed.
    """
    target, source = pair.target, pair.source
    stored = _read(connection, [target, source])
    pair.check.raise_if_suppressed()
    found = plan_merge(stored[target], stored[source])
    merges.move(connection, source, target)
    for name in LISTS:
        decisions = [one for one in found.decisions if one.part == name]
        for start in range(0, len(decisions), BATCH):
            _merge_entries(connection, pair, LISTS[name], decisions[start : start + BATCH])
    merged_addresses.add(connection, source, target, found.lost_addresses)
    # Before the target takes its unique identities. Everything that is left of the source goes with it.
    connection.execute(removal.DELETE_BY_IDS, ([source],))
    connection.execute(_MARK, {"target": target, "source": source})
    connection.execute(statements.update_email(tuple(found.email)), [*found.email.values(), target])
    for name, group in found.groups.items():
        _write_group(connection, target, SUB_DOCUMENTS[name], group)
    merges.conclude(connection, source, target)
    backends = sorted({*outbox().names, *find_known(connection)[BACKEND]})
    outbox().changed(connection, [target, source], backends=backends)
    deletions.add_merged(connection, backends, source, target)
    document = store_written(connection, target)
    assert document is not None  # noqa: S101  locked
    return MergeResult(document, found)


def describe(plan: MergePlan, target: UUID, source: UUID) -> dict[str, list[dict[str, Any]]]:
    """Return the plan in the words of its users: `filled` fields, `subscriptions`, and `conflicts`."""
    return {
        "filled": [one._asdict() for one in plan.filled],
        "subscriptions": [
            {
                "part": one.part,
                "name": one.name,
                "decided_by": str(source if one.is_source else target),
                "subscribed": one.subscribed,
            }
            for one in plan.decisions
        ],
        "conflicts": [one._asdict() for one in plan.conflicts],
    }


def _moving(target: Mapping[str, str | None], source: Mapping[str, str | None]) -> set[str]:
    """Return the addresses of the source that the target lacks, except the source's own."""
    found = (source.get(name) for name in _OTHER_ADDRESSES if not target.get(name))
    return {address for address in found if address}


def _read(connection: Connection, email_ids: Sequence[UUID]) -> dict[UUID, StoredContact]:
    """Return the rows of the contacts; in pipeline mode, all statements are sent together."""
    results = {name: connection.execute(_select(name), (list(email_ids),)) for name in PARTS}
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, cursor in results.items():
        found = cursor.fetchall()
        names = [column.name for column in cursor.description or ()]  # not known before the results are
        rows[name] = [dict(zip(names, row, strict=True)) for row in found]
    return {
        email_id: StoredContact(
            {name: row for name in (EMAIL.name, *SUB_DOCUMENTS) for row in rows[name] if row["contact"] == email_id},
            {name: {row["name"]: row for row in rows[name] if row["contact"] == email_id} for name in LISTS},
        )
        for email_id in email_ids
    }


@cache
def _select(name: str) -> str:
    """Return the query for the rows of a part: all of a sub-document, of a list only what decides."""
    part = PARTS[name]
    if part.many:
        columns = '"name", coalesce(subscribed, true) AS subscribed'
    else:  # JSON as text, so that it moves as it is stored
        columns = ", ".join(
            f'"{column}"::text' if part.types[column].startswith("JSON") else f'"{column}"' for column in part.columns
        )
    return f"""
        SELECT email_id AS contact, {columns}, create_timestamp, update_timestamp
        FROM {part.table} WHERE email_id = ANY(%s)"""


def _merge_entries(connection: Connection, pair: LockedPair, part: Part, decisions: Sequence[Decision]) -> None:
    """Move or compare entries. The triggers record an event for each, with both entries as evidence."""
    new = [one.name for one in decisions if one.target_row is None]
    taken = [one.name for one in decisions if one.target_row is not None and one.is_source]
    kept = [one.name for one in decisions if not one.is_source]
    evidence = {part.name: {one.name: _evidence(pair, one) for one in decisions}}
    with recorded_evidence(connection, evidence):
        for names, statement in ((new, _MOVE), (taken, _take(part.name)), (kept, _KEEP)):
            if names:
                values = {"target": pair.target, "source": pair.source, "names": names}
                connection.execute(statement.format(table=part.table), values)


_MOVE = "UPDATE {table} SET email_id = %(target)s WHERE email_id = %(source)s AND name = ANY(%(names)s)"

# Two entries in the same state are one consent, given first at the earlier time. An entry in another state has no part
# in it: a consent that was withdrawn does not make a later one older. Its times are in the evidence of the event.
_FIRST = """
    create_timestamp = CASE WHEN coalesce(t.subscribed, true) = coalesce(s.subscribed, true)
        THEN least(t.create_timestamp, s.create_timestamp) ELSE {counting}.create_timestamp END"""
_OF_BOTH = """
    FROM {table} s
    WHERE t.email_id = %(target)s AND s.email_id = %(source)s AND s.name = t.name AND t.name = ANY(%(names)s)"""
_KEEP = f"UPDATE {{table}} t SET {_FIRST.format(counting='t')} {_OF_BOTH}"


@cache
def _take(name: str) -> str:
    columns = "".join(f'"{column}" = s."{column}", ' for column in LISTS[name].columns if column != "name")
    changes = f"{columns}update_timestamp = s.update_timestamp, {_FIRST.format(counting='s')}"
    return f"UPDATE {{table}} t SET {changes} {_OF_BOTH}"


def _evidence(pair: LockedPair, decision: Decision) -> dict[str, Any]:
    return {
        merges.MERGED_FROM: str(pair.source),
        "source": _state(decision.source_row),
        "target": None if decision.target_row is None else _state(decision.target_row),
    }


def _state(row: Row) -> dict[str, Any]:
    times = {name: row[name].isoformat() for name in ("create_timestamp", "update_timestamp")}
    return {"subscribed": row["subscribed"], **times}


def _write_group(connection: Connection, target: UUID, part: Part, group: MergedGroup) -> None:
    row = {name: Json(value) if isinstance(value, dict) else value for name, value in group.values.items()}
    values = {**row, "contact": target, "create_timestamp": group.create_timestamp}
    connection.execute(_upsert(part.name), values)


@cache
def _upsert(name: str) -> str:
    part = SUB_DOCUMENTS[name]
    columns = ", ".join(f'"{column}"' for column in part.columns)
    values = ", ".join(f"%({column})s::{part.types[column]}" for column in part.columns)
    changes = "".join(f'"{column}" = excluded."{column}", ' for column in (*part.columns, "create_timestamp"))
    return f"""
        INSERT INTO {part.table} (email_id, {columns}, create_timestamp, update_timestamp)
        SELECT e.email_id, {values}, %(create_timestamp)s, e.update_timestamp FROM emails e WHERE email_id = %(contact)s
        ON CONFLICT (email_id) DO UPDATE SET {changes}update_timestamp = excluded.update_timestamp"""
