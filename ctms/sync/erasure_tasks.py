"""Pending tasks of a deletion handler: contacts to erase, to ask about, or to verify.

Rows are deleted, and the counters of the erasure updated, in one transaction: so every contact counts once, however
often the handler was called, and its identities are deleted with the row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctms.addresses import expand_spellings
from ctms.database.pool import Connection
from ctms.erasure.erase import ERASE
from ctms.hooks.receivers import DeletionHandler, Verifies
from ctms.outbox.changes import outbox
from ctms.outbox.lanes import Lane
from ctms.sync.verdicts import AskAgain, Finished, Later, Parked, Verdict
from ctms.sync.work import PROBED, Batch, Item, least_tried

ACCEPTED = "accepted"
"""The erasure has begun there: ask again, with `verify` if the handler has it."""
VERIFY = "verify"
"""Erased and counted as done: to be verified."""

_CLAIM = """
    SELECT id, step, identities, attempts, failures FROM erasure_tasks
    WHERE handler = %s AND parked_at IS NULL AND due_at <= statement_timestamp()
        AND CASE WHEN %s = 1 OR mod(id, %s) = %s THEN true END
    ORDER BY due_at LIMIT %s"""

# The erasures' records are locked in one order, before the tasks: two lanes may have tasks of the same erasures.
_LOCK = """
    SELECT FROM erasure_handlers WHERE handler = %s AND erasure_id IN (
        SELECT erasure_id FROM erasure_tasks WHERE id = ANY(%s))
    ORDER BY erasure_id FOR NO KEY UPDATE"""

# A task that another worker has settled in the meantime is at another step, or gone.
_GIVEN = "unnest(%(ids)s::bigint[], %(steps)s::text[]) AS g (id, step)"
_SAME = "t.id = g.id AND t.step = g.step AND t.parked_at IS NULL"

_LEFT = "(h.pending > n.pending OR h.parked > 0)"
"""Whether the handler has unfinished tasks of the erasure: else the last reason is cleared."""

_FINISHED = f"""
    WITH moved AS (DELETE FROM erasure_tasks t USING {_GIVEN} WHERE {_SAME} RETURNING t.erasure_id, t.step)
    UPDATE erasure_handlers h SET
        pending = h.pending - n.pending, done = h.done - n.done + n.erased, verified = h.verified + n.verified,
        reason = CASE WHEN {_LEFT} OR (%(looked)s AND h.done > n.done) THEN h.reason END,
        changed_at = clock_timestamp()
    FROM (
        SELECT erasure_id, count(*) FILTER (WHERE step <> '{VERIFY}') AS pending,
            count(*) FILTER (WHERE step = '{VERIFY}') AS done,
            count(*) FILTER (WHERE NOT %(looked)s) AS erased,
            count(*) FILTER (WHERE %(looked)s) AS verified
        FROM moved GROUP BY erasure_id
    ) n WHERE h.erasure_id = n.erasure_id AND h.handler = %(handler)s"""
_TO_VERIFY = f"""
    WITH moved AS (
        UPDATE erasure_tasks t SET
            step = '{VERIFY}', due_at = clock_timestamp() + make_interval(secs => %(after)s),
            attempts = 0, failures = 0, reason = NULL
        FROM {_GIVEN} WHERE {_SAME} RETURNING t.erasure_id)
    UPDATE erasure_handlers h SET
        pending = h.pending - n.pending, done = h.done + n.pending, reason = CASE WHEN {_LEFT} THEN h.reason END,
        changed_at = clock_timestamp()
    FROM (SELECT erasure_id, count(*) AS pending FROM moved GROUP BY erasure_id) n
    WHERE h.erasure_id = n.erasure_id AND h.handler = %(handler)s"""
_UNVERIFIED = f"""
    WITH moved AS (DELETE FROM erasure_tasks t USING {_GIVEN} WHERE {_SAME} RETURNING t.erasure_id)
    UPDATE erasure_handlers h SET reason = NULL, changed_at = clock_timestamp()
    WHERE h.erasure_id IN (SELECT erasure_id FROM moved) AND h.handler = %(handler)s
        AND h.pending = 0 AND h.parked = 0 AND h.reason IS NOT NULL"""
_LATER = """
    WITH moved AS (
        UPDATE erasure_tasks t SET
            step = g.next, due_at = clock_timestamp() + make_interval(secs => g.seconds),
            attempts = t.attempts + g.tried, failures = t.failures + g.counts, reason = g.reason
        FROM unnest(%(ids)s::bigint[], %(steps)s::text[], %(next)s::text[], %(seconds)s::float8[], %(tried)s::int[],
            %(counts)s::int[], %(reasons)s::text[]) AS g (id, step, next, seconds, tried, counts, reason)
        WHERE t.id = g.id AND t.step = g.step AND t.parked_at IS NULL RETURNING t.erasure_id, t.reason)
    UPDATE erasure_handlers h SET reason = n.reason, changed_at = clock_timestamp()
    FROM (SELECT erasure_id, max(reason) AS reason FROM moved GROUP BY erasure_id) n
    WHERE h.erasure_id = n.erasure_id AND h.handler = %(handler)s AND n.reason IS NOT NULL"""
_PARKED = f"""
    WITH moved AS (
        UPDATE erasure_tasks t SET
            step = '{ERASE}', parked_at = clock_timestamp(), attempts = t.attempts + 1, reason = g.reason
        FROM unnest(%(ids)s::bigint[], %(steps)s::text[], %(reasons)s::text[]) AS g (id, step, reason)
        WHERE {_SAME} RETURNING t.erasure_id, g.step, t.reason)
    UPDATE erasure_handlers h SET
        pending = h.pending - n.pending, done = h.done - n.done, parked = h.parked + n.pending + n.done,
        reason = n.reason,
        changed_at = clock_timestamp()
    FROM (
        SELECT erasure_id, count(*) FILTER (WHERE step <> '{VERIFY}') AS pending,
            count(*) FILTER (WHERE step = '{VERIFY}') AS done, max(reason) AS reason
        FROM moved GROUP BY erasure_id
    ) n WHERE h.erasure_id = n.erasure_id AND h.handler = %(handler)s"""

_BEFORE_BACKEND = """
    SELECT t.id FROM erasure_tasks t JOIN erasure_deletions d
        ON d.erasure_id = t.erasure_id AND d.backend = %s AND d.email_id = (t.identities ->> 'email_id')::uuid
    WHERE t.id = ANY(%s) AND NOT d.parked"""
_AFTER_BACKEND_IN_SECONDS = 60.0
"""The shortest delay before a verification that came before the backend's deletion is repeated."""

# Contacts that were created again with the same address: a handler that erases by address has erased these too.
_BACK = """
    SELECT DISTINCT email_id FROM emails
    WHERE lower(primary_email) = ANY (ARRAY(SELECT lower(a) FROM unnest(%s::text[]) AS a))"""


class ErasureWork:
    """The pending tasks of one deletion handler in one lane. The items' versions are their steps."""

    def __init__(self, lane: Lane, handler: DeletionHandler) -> None:
        self.lane = lane
        self.max_batch = handler.max_batch
        self.timeout = handler.timeout
        self.rate = handler.rate
        self._handler = handler

    def claim(self, connection: Connection, limit: int, *, probing: bool) -> Sequence[Item]:
        """Return due items."""
        lanes = self._handler.concurrency
        values = (self.lane.name, lanes, lanes, self.lane.number, PROBED if probing else limit)
        items = [
            Item(key, identities["email_id"], step, attempts, failures, identities)
            for key, step, identities, attempts, failures in connection.execute(_CLAIM, values).fetchall()
        ]
        return least_tried(items, limit) if probing else items

    def prepare(self, connection: Connection, items: Sequence[Item]) -> tuple[list[Batch], dict[Item, Verdict]]:
        """Separate the contacts to erase from those to ask about; a handler without `verify` any more is not asked."""
        verifies = self._handler.verifies
        erase = [item for item in items if item.version == ERASE or (item.version == ACCEPTED and not verifies)]
        ask = [item for item in items if item.version != ERASE and verifies]
        batches = [*_batches("erase", erase), *_batches("verify", ask)]
        return batches, {item: Finished() for item in items if item.version == VERIFY and not verifies}

    def call(self, batch: Batch) -> Any:
        """Erase or verify the batch."""
        identities = [item.payload for item in batch.items]
        implementation = self._handler.implementation
        if batch.method == "verify":
            assert isinstance(implementation, Verifies)  # noqa: S101  `prepare` has looked
            return implementation.verify(identities)
        return implementation.erase(identities)

    def handle_late_end(self, connection: Connection, batch: Batch) -> None:
        """Do nothing: a repeated erasure is harmless, in any order."""

    def settle(self, connection: Connection, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        """Store the verdicts of the contacts."""
        connection.execute(_LOCK, (self.lane.name, [item.key for item in verdicts]))
        finished = [item for item, verdict in verdicts.items() if isinstance(verdict, Finished)]
        to_verify = [item for item in finished if batch.method == "erase" and self._handler.verifies]
        if to_verify:
            connection.execute(_TO_VERIFY, {**self._named(to_verify), "after": self._handler.verify_after})
        over = [item for item in finished if item not in to_verify]
        if over and batch.method:
            connection.execute(_FINISHED, {**self._named(over), "looked": batch.method == "verify"})
        elif over:  # not called at all
            connection.execute(_UNVERIFIED, self._named(over))
        later = {item: verdict for item, verdict in verdicts.items() if isinstance(verdict, Later | AskAgain)}
        parked = {item: verdict for item, verdict in verdicts.items() if isinstance(verdict, Parked)}
        if parked and batch.method == "verify":
            for item in self._verified_early(connection, list(parked)):
                reason = parked.pop(item).reason
                delay = max(self._handler.verify_after, _AFTER_BACKEND_IN_SECONDS)
                later[item] = Later(delay, reason, tried=False, in_progress=True)
        if later:
            connection.execute(_LATER, {**self._named(list(later)), **_delays(later)})
        if parked:
            reasons = [verdict.reason for verdict in parked.values()]
            connection.execute(_PARKED, {**self._named(list(parked)), "reasons": reasons})
        if finished and batch.method == "erase":
            self._push_again(connection, finished)

    def _verified_early(self, connection: Connection, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items whose contacts the same plugin's backend has yet to delete: what is left may be its copy."""
        rows = connection.execute(_BEFORE_BACKEND, (self.lane.name, [item.key for item in items])).fetchall()
        early = {key for (key,) in rows}
        return [item for item in items if item.key in early]

    def _push_again(self, connection: Connection, erased: Sequence[Item]) -> None:
        """Push contacts with the addresses of those that were erased to the backends again."""
        if outbox().names:
            _, found = expand_spellings(
                item.payload["primary_email"] for item in erased if item.payload["primary_email"]
            )
            rows = connection.execute(_BACK, (found,)).fetchall()
            outbox().changed(connection, [email_id for (email_id,) in rows])

    def _named(self, items: Sequence[Item]) -> dict[str, Any]:
        return {
            "handler": self.lane.name,
            "ids": [item.key for item in items],
            "steps": [item.version for item in items],
        }


def _batches(method: str, items: Sequence[Item]) -> list[Batch]:
    """Return batches in which each id occurs once.

    Results are by id, and a contact that was created again with the same id may have had another address.
    """
    found: list[dict[str, Item]] = []
    for item in items:
        place = next((one for one in found if item.email_id not in one), None)
        if place is None:
            found.append(place := {})
        place[item.email_id] = item
    return [Batch(method, list(one.values())) for one in found]


def _delays(later: Mapping[Item, Later | AskAgain]) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {name: [] for name in ("next", "seconds", "tried", "counts", "reasons")}
    for item, verdict in later.items():
        asks = isinstance(verdict, AskAgain)
        columns["next"].append(ACCEPTED if asks and item.version == ERASE else item.version)
        columns["seconds"].append(verdict.seconds)
        columns["tried"].append(1 if isinstance(verdict, AskAgain) else int(verdict.tried))
        columns["counts"].append(0 if isinstance(verdict, AskAgain) else int(verdict.counts))
        columns["reasons"].append(None if isinstance(verdict, AskAgain) else verdict.reason)
    return columns
