"""Pending contacts of a backend, pushed with their current data."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from ctms.contacts import queries
from ctms.contacts.documents import with_status
from ctms.database.pool import Connection
from ctms.database.replicas import read_replica
from ctms.hooks.receivers import Backend, ContactState
from ctms.outbox import deletions
from ctms.outbox.changes import LIVE, RESYNC
from ctms.outbox.deletions import Delay, Deletion
from ctms.outbox.lanes import Lane
from ctms.sync import mirrored
from ctms.sync.verdicts import AskAgain, Finished, Later, Parked, Verdict, verdict_of_error
from ctms.sync.work import PROBED, Batch, Item, least_tried

logger = logging.getLogger(__name__)

# A contact always uses the same lane. For a plain comparison the planner would estimate that one in two hundred rows
# matches, and sort all pending rows; so it estimates every other one.
LANE = "CASE WHEN %(lanes)s = 1 OR mod(hashtext({key}::text) & 2147483647, %(lanes)s) = %(number)s THEN true END"

# `clock_timestamp()` may change while a statement runs, so no index can be searched for what is due by it.
_CLAIM = f"""
    SELECT email_id, version, attempts, failures FROM outbox
    WHERE backend = %(backend)s AND priority = %(priority)s AND parked_at IS NULL AND due_at <= statement_timestamp()
        AND {LANE.format(key="email_id")}
    ORDER BY due_at LIMIT %(limit)s"""
_PRIORITIES = (LIVE, RESYNC)
"""Two index scans, one after the other, so that entries that are not due yet are never read."""

# A contact that was edited since it was read has another version: it stays pending, since then, and is due. The rows
# are locked in the order in which writers lock them. A contact that exists again also stays pending: for an erasure it
# was pushed as gone.
_LOCKED = """
    WITH given AS (SELECT * FROM unnest(%(ids)s::uuid[], %(versions)s::bigint[]) AS g (email_id, version)),
    locked AS (
        SELECT o.email_id, o.version = g.version AS same FROM outbox o JOIN given g USING (email_id)
        WHERE o.backend = %(backend)s ORDER BY o.email_id FOR UPDATE OF o)"""
_DONE = f"""{_LOCKED},
    waits AS (
        UPDATE outbox o SET waiting_since = greatest(o.waiting_since, %(began)s)
        FROM locked l WHERE o.backend = %(backend)s AND o.email_id = l.email_id AND NOT l.same),
    back AS (
        UPDATE outbox o SET attempts = 0, failures = 0, reason = NULL
        FROM locked l
        WHERE o.backend = %(backend)s AND o.email_id = l.email_id AND l.same AND l.email_id = ANY(%(back)s::uuid[])),
    done AS (
        DELETE FROM outbox o USING locked l
        WHERE o.backend = %(backend)s AND o.email_id = l.email_id AND l.same AND l.email_id <> ALL(%(back)s::uuid[]))
    SELECT email_id, same FROM locked"""
_LATER = f"""{_LOCKED},
    later AS (UPDATE outbox o SET
        due_at = clock_timestamp() + make_interval(secs => v.seconds), attempts = o.attempts + v.tried,
        failures = o.failures + v.counts, reason = v.reason
    FROM locked l JOIN unnest(%(ids)s::uuid[], %(seconds)s::float8[], %(tried)s::int[], %(counts)s::int[],
        %(reasons)s::text[]) AS v (email_id, seconds, tried, counts, reason) USING (email_id)
    WHERE o.backend = %(backend)s AND o.email_id = l.email_id AND l.same)
    SELECT email_id, same FROM locked"""
_PARKED = f"""{_LOCKED},
    parked AS (UPDATE outbox o SET parked_at = clock_timestamp(), attempts = o.attempts + 1, reason = v.reason
    FROM locked l JOIN unnest(%(ids)s::uuid[], %(reasons)s::text[]) AS v (email_id, reason) USING (email_id)
    WHERE o.backend = %(backend)s AND o.email_id = l.email_id AND l.same)
    SELECT email_id, same FROM locked"""

# Two calls with one contact may have overlapped: one timed out, or the worker stalled so long that another one took
# over its lane. The order of their effects is unknown: the contact is pushed again.
_AGAIN = """
    INSERT INTO outbox AS o (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
    SELECT %(backend)s, c, (extract(epoch FROM now) * 1000000)::bigint, %(priority)s, now, now, 0, 0
    FROM clock_timestamp() AS now, unnest(%(ids)s::uuid[]) AS c ORDER BY c
    ON CONFLICT (backend, email_id) DO UPDATE SET version = greatest(o.version + 1, excluded.version)"""


@dataclass
class _Push:
    """The state of a contact to push, and the deletions that are settled if it is pushed as gone.

    `back` is true if the contact exists again: it is pushed again afterwards, with its document.
    """

    deletions: tuple[Deletion, ...]
    back: bool = False
    state: ContactState | None = None

    @property
    def of_erasure(self) -> bool:
        """True if an erasure waits for the deletion; otherwise at most a merge does."""
        return any(deletion.erasure_id for deletion in self.deletions)

    @property
    def gone(self) -> bool:
        """True if the contact is pushed as gone."""
        return self.state is not None and self.state.gone


class BackendWork:
    """The pending contacts of one backend in one lane."""

    def __init__(self, lane: Lane, backend: Backend) -> None:
        self.lane = lane
        self.max_batch = backend.max_batch
        self.timeout = backend.timeout
        self.rate = backend.rate
        self._backend = backend

    def claim(self, connection: Connection, limit: int, *, probing: bool) -> Sequence[Item]:
        """Return due items."""
        values = {
            "backend": self.lane.name,
            "lanes": self._backend.concurrency,
            "number": self.lane.number,
        }
        most = PROBED if probing else limit
        rows: list[Any] = []
        for priority in _PRIORITIES:
            if len(rows) < most:
                named = {**values, "priority": priority, "limit": most - len(rows)}
                rows += connection.execute(_CLAIM, named).fetchall()
        items = [Item(key, str(key), version, attempts, failures) for key, version, attempts, failures in rows]
        return least_tried(items, limit) if probing else items

    def prepare(self, connection: Connection, items: Sequence[Item]) -> tuple[list[Batch], dict[Item, Verdict]]:
        """Read the current contacts; those that the backend neither wants nor has need no push.

        A contact that an erasure or a merge deleted is pushed as gone first, even if it exists again; for an erasure,
        whatever the backend has.
        """
        keys = [item.key for item in items]
        # Before the documents: an erasure between the two changes the version in the outbox.
        to_delete = deletions.find(connection, self.lane.name, keys)
        # A replica that is used has at least the versions that were claimed.
        found = read_replica(connection, lambda source: queries.documents_by_id(source, keys))
        documents: dict[Item, Any] = {}
        for item in items:
            push = _Push(to_delete.get(item.key, ()))
            push.back = bool(push.deletions) and item.key in found
            read = item.key in found and not push.deletions
            documents[replace(item, payload=push)] = json.loads(with_status(found[item.key])) if read else None
        verdicts: dict[Item, Verdict] = {}
        if self._backend.selects:
            self._select(connection, documents, verdicts)
        elif any(documents.values()):  # before the push, as in `_select`
            mirrored.record_unlisted(connection, self.lane.name)
        batch = [item for item in documents if item not in verdicts]
        for item in batch:
            item.payload.state = ContactState(item.email_id, documents[item])
        return [Batch("push", batch)] if batch else [], verdicts

    def call(self, batch: Batch) -> Any:
        """Push the batch."""
        return self._backend.implementation.push([item.payload.state for item in batch.items], self._key(batch))

    def handle_late_end(self, connection: Connection, batch: Batch) -> None:
        """Push the contacts again: another worker may have pushed newer states."""
        self._push_again(connection, batch.items)

    def settle(self, connection: Connection, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        """Store the verdicts of the contacts."""
        settled: dict[UUID, bool] = {}
        finished = [item for item, verdict in verdicts.items() if isinstance(verdict, Finished)]
        if finished:
            gone = [item.key for item in finished if item.payload.gone]
            if self._backend.selects and gone:
                mirrored.remove(connection, self.lane.name, gone)
            back = [item.key for item in finished if item.payload.back]
            settled |= self._settled(connection, _DONE, {**self._named(finished), "began": batch.began, "back": back})
        later = {item: _later(verdict) for item, verdict in verdicts.items() if isinstance(verdict, Later | AskAgain)}
        if later:
            settled |= self._settled(
                connection,
                _LATER,
                {
                    **self._named(later),
                    "seconds": [verdict.seconds for verdict in later.values()],
                    "tried": [int(verdict.tried) for verdict in later.values()],
                    "counts": [int(verdict.counts) for verdict in later.values()],
                    "reasons": [verdict.reason for verdict in later.values()],
                },
            )
        parked = {item: verdict for item, verdict in verdicts.items() if isinstance(verdict, Parked)}
        if parked:
            reasons = [verdict.reason for verdict in parked.values()]
            settled |= self._settled(connection, _PARKED, {**self._named(parked), "reasons": reasons})
        self._settle_deletions(connection, finished, {**later, **parked}, settled)
        settled_elsewhere = [item for item in verdicts if item.key not in settled]
        if settled_elsewhere and batch.method:
            self._push_again(connection, settled_elsewhere)

    def _settled(self, connection: Connection, sql: str, values: Mapping[str, Any]) -> dict[UUID, bool]:
        """Execute a settling statement; return the contacts that were still pending, True for the same version."""
        return dict(connection.execute(sql, values).fetchall())

    def _settle_deletions(
        self,
        connection: Connection,
        finished: Iterable[Item],
        delayed: Mapping[Item, Later | Parked],
        settled: Mapping[UUID, bool],
    ) -> None:
        """Settle the erasures' deletions: only those that were read before the push; later ones need another push."""
        delays: dict[Deletion, Delay] = {}
        for item, verdict in delayed.items():
            # A contact that was edited in the meantime is not parked: it is pushed again.
            is_parked = isinstance(verdict, Parked) and settled.get(item.key, False)
            delays |= dict.fromkeys(item.payload.deletions, Delay(is_parked, verdict.reason))
        done = [deletion for item in finished for deletion in item.payload.deletions]
        deletions.settle(connection, self.lane.name, done, delays)

    def _push_again(self, connection: Connection, items: Iterable[Item]) -> None:
        """Push contacts again; a backend that selects is recorded as possibly having what was pushed."""
        items = list(items)
        if self._backend.selects:
            there = [item.key for item in items if item.payload.state and not item.payload.gone]
            mirrored.add(connection, self.lane.name, there)
        values = {"backend": self.lane.name, "ids": [item.key for item in items], "priority": LIVE}
        connection.execute(_AGAIN, values)

    def _named(self, items: Mapping[Item, Any] | Sequence[Item]) -> dict[str, Any]:
        return {
            "backend": self.lane.name,
            "ids": [item.key for item in items],
            "versions": [item.version for item in items],
        }

    def _select(self, connection: Connection, documents: dict[Item, Any], verdicts: dict[Item, Verdict]) -> None:
        """List contacts that the backend will have; skip unwanted contacts that it cannot have.

        Other unwanted contacts are pushed as gone. For a pending erasure nothing is assumed: the backend itself must
        confirm that nothing is left.
        """
        for item, document in documents.items():
            if document is None:
                continue
            try:
                if not self._backend.is_for(document):
                    documents[item] = None
            except Exception as error:
                logger.exception("backend %s cannot tell whether it wants contact %s", self.lane.name, item.email_id)
                verdicts[item] = verdict_of_error(error, item.attempts, item.failures)
        wanted = [item.key for item, document in documents.items() if document is not None and item not in verdicts]
        others = {item.key for item, doc in documents.items() if doc is None and not item.payload.of_erasure}
        if wanted:  # before the push: the service may be killed between the two
            mirrored.add(connection, self.lane.name, wanted)
        if others:
            unknown = others - mirrored.find(connection, self.lane.name, others)
            verdicts |= {item: Finished() for item in documents if item.key in unknown}

    def _key(self, batch: Batch) -> str:
        """Return the idempotency key of these states: the same if exactly these are retried."""
        said = "\n".join(sorted(f"{item.email_id} {item.version} {item.payload.gone}" for item in batch.items))
        return hashlib.sha256(f"{self.lane.name}\n{said}".encode()).hexdigest()[:32]


def _later(verdict: Later | AskAgain) -> Later:
    """Treat `Accepted` as a retry: a backend cannot be asked later, so the contact is pushed again."""
    return Later(verdict.seconds) if isinstance(verdict, AskAgain) else verdict
