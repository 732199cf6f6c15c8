"""Comparison of another system's data with the contacts, for a random sample."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from ctms.contacts import queries
from ctms.contacts.documents import with_status
from ctms.database.pool import Connection
from ctms.database.sampling import sample_contacts
from ctms.hooks.comparison import differences
from ctms.hooks.receivers import Backend
from ctms.outbox.changes import RESYNC, outbox
from ctms.sync import mirrored
from ctms.sync.fetch import Fetch
from ctms.sync.verdicts import sanitize_reason

_WAITING = "SELECT email_id, parked_at IS NOT NULL FROM outbox WHERE backend = %s AND email_id = ANY(%s)"


@dataclass
class Findings:
    """The result: the number of equal contacts, and the ids of the others.

    `missing` are not there; `extra` are there, though deleted or unwanted; `differing` have other values at these
    places. Not compared are contacts that are pending or parked, that changed in the meantime, and those for which
    `wants` fails (`unclear`).
    """

    sample: int = 0
    equal: int = 0
    waiting: int = 0
    parked: int = 0
    changed: int = 0
    unclear: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    differing: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> list[str]:
        """The ids of all contacts that differ."""
        return sorted({*self.missing, *self.extra, *(one for ids in self.differing.values() for one in ids)})


def verify(connection: Connection, backend: Backend, number: int) -> Findings:
    """Compare a random sample of `number` contacts; for a backend that selects, also as many that it has.

    Raises `OperatorError` if the backend cannot be compared or its `fetch` fails.
    """
    fetch = Fetch(backend)
    found = Findings()
    ids = _sample(connection, backend, number)
    for start in range(0, len(ids), backend.max_batch):
        _compare(connection, backend, fetch, ids[start : start + backend.max_batch], found)
    return found


def repair(connection: Connection, backend: Backend, found: Findings) -> None:
    """Push the contacts that differ again."""
    with connection.transaction():
        if backend.selects:  # unwanted contacts are pushed as gone only if it is known to have them
            mirrored.add(connection, backend.name, found.extra)
        wrong = [UUID(one) for one in found.wrong]
        outbox().changed(connection, wrong, priority=RESYNC, backends=[backend.name])


def _sample(connection: Connection, backend: Backend, number: int) -> list[UUID]:
    ids = dict.fromkeys(sample_contacts(connection, "emails", number))
    if backend.selects:
        values = {"backend": backend.name}
        ids |= dict.fromkeys(sample_contacts(connection, "outbox_mirrored", number, "backend = %(backend)s", values))
    return list(ids)


@dataclass(frozen=True)
class _Snapshot:
    """The documents of some contacts, and the pending ones among them (True: parked), at one time."""

    documents: Mapping[UUID, str]
    waiting: Mapping[UUID, bool]


def _read_snapshot(connection: Connection, email_ids: Sequence[UUID], backend: str) -> _Snapshot:
    # In this order: an edit between the two queries is seen as pending, and the document is the older one.
    documents = queries.documents_by_id(connection, email_ids)
    return _Snapshot(documents, dict(connection.execute(_WAITING, (backend, list(email_ids))).fetchall()))


def _compare(
    connection: Connection, backend: Backend, fetch: Fetch, email_ids: Sequence[UUID], found: Findings
) -> None:
    """Read before and after the call: only contacts that did not change, and were not pending, can be compared."""
    before = _read_snapshot(connection, email_ids, backend.name)
    kept = fetch([str(email_id) for email_id in email_ids])
    after = _read_snapshot(connection, email_ids, backend.name)
    for email_id in email_ids:
        found.sample += 1
        waiting = {**before.waiting, **after.waiting}.get(email_id)
        document = after.documents.get(email_id)
        if waiting is not None:
            found.parked += waiting
            found.waiting += not waiting
        elif document != before.documents.get(email_id):
            found.changed += 1
        else:
            _judge(backend, str(email_id), document, kept.get(str(email_id)), found)


def _judge(
    backend: Backend, email_id: str, document: str | None, kept: Mapping[str, Any] | None, found: Findings
) -> None:
    wanted = None if document is None else json.loads(with_status(document))
    try:
        if wanted is not None and not backend.is_for(wanted):
            wanted = None
    except Exception:  # noqa: BLE001  whatever a plugin raises
        found.unclear += 1
        return
    if wanted is None or kept is None:
        found.equal += wanted is None and kept is None
        if wanted is not None:
            found.missing.append(email_id)
        elif kept is not None:
            found.extra.append(email_id)
        return
    places = list(_places(wanted, kept))
    found.equal += not places
    for place in places:
        found.differing.setdefault(place, []).append(email_id)


def _places(wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> Iterator[str]:
    # The other system's names of unknown members might be anything.
    yield from sorted({sanitize_reason(place) or "…" for place in differences(wanted, kept)})
