"""Apply the rules: count first, then erase or anonymise in batches, each of which is a transaction.

A contact is erased only if it still matches and has not changed since it was found. That is checked after it is locked,
as is its legal hold. A contact that another transaction has locked is being changed, and is left to the next run. Two
runs at the same time are harmless: each contact is erased once.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg

from ctms.bulk.batches import process_batch
from ctms.contacts import accounts, removal
from ctms.contacts.removal import LockedContact
from ctms.database.pool import Connection
from ctms.erasure.erase import ErasureRequest, erase
from ctms.retention import runs
from ctms.retention.anonymise import add_to_counts
from ctms.retention.candidates import Candidate, CandidateCounts, Scan
from ctms.retention.holds import HeldContacts
from ctms.retention.policy import ANONYMISE, RetentionPolicy, RetentionRule

ERASED, ANONYMISED, HELD, CHANGED, FAILED = "erased", "anonymised", "held", "changed", "failed"
OUTCOMES = (ERASED, ANONYMISED, HELD, CHANGED, FAILED)
"""The outcomes of a contact. A `changed` one has changed since it was found, or is being changed."""

_NOW = "SELECT clock_timestamp()"
_LOCK = "SELECT email_id FROM emails WHERE email_id = ANY(%s) ORDER BY email_id FOR UPDATE SKIP LOCKED"
# As in `candidates`, the subquery is planned for a single contact.
_UNCHANGED = """
    SELECT e.email_id FROM unnest(%s::uuid[], %s::timestamptz[]) AS g (email_id, update_timestamp)
    JOIN emails e ON e.email_id = g.email_id AND e.update_timestamp = g.update_timestamp,
    LATERAL (SELECT WHERE {when} OFFSET 0) still
    WHERE e.email_id = ANY(%s)"""


class InterruptedRunError(Exception):
    """A run is interrupted between two statements, because its process ends."""


class RetentionOutcome(NamedTuple):
    """What a run did with a contact, and the problem if it failed."""

    email_id: UUID
    rule: str
    outcome: str
    problem: str | None = None


def _ignore(*_: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run: its starter, its maximum of contacts, and how it reports and is interrupted.

    `on_window` is called before each statement that searches and after each batch, and may raise to stop the run. A
    batch and its `on_commit` run inside `defer_signals()`.
    """

    by: str
    maximum: int
    batch_size: int = 500
    pause: float = 0.0
    on_window: Callable[[], None] = _ignore
    on_commit: Callable[[Sequence[RetentionOutcome]], None] = _ignore
    defer_signals: Callable[[], AbstractContextManager[object]] = nullcontext


@dataclass
class RunResult:
    """The result of a run: its outcome (`ctms.retention.runs`), the counts before it, and outcomes by rule."""

    outcome: str
    found: CandidateCounts
    outcomes: Counter[tuple[str, str]]

    @property
    def numbers(self) -> dict[str, int]:
        """The numbers of contacts, for the record of the run."""
        by_outcome: Counter[str] = Counter()
        for (_, outcome), number in self.outcomes.items():
            by_outcome[outcome] += number
        return {"found": self.found.due.total(), **{outcome: by_outcome[outcome] for outcome in OUTCOMES}}


def database_time(connection: Connection) -> datetime:
    """Return the time of the database's clock."""
    row = connection.execute(_NOW).fetchone()
    assert row is not None  # noqa: S101  it has no condition
    now: datetime = row[0]
    return now


def apply_rules(connection: Connection, policy: RetentionPolicy, options: RunOptions) -> RunResult:
    """Apply the rules once; nothing is erased if they match more contacts than the maximum.

    Not inside a transaction. Committed batches stay committed, whatever stops the run; the next run does the rest.
    """
    run_id = uuid.uuid4()
    runs.start(connection, run_id, options.by, options.maximum)
    result = RunResult(runs.INTERRUPTED, CandidateCounts(Counter(), Counter()), Counter())
    try:
        scan = Scan(policy, database_time(connection))
        result.found = scan.count(connection, options.maximum, options.on_window)
        if result.found.due.total() > options.maximum:
            result.outcome = runs.OVER_MAX
        else:
            _erase_all(connection, policy, scan, options, result.outcomes)
            failed = any(outcome == FAILED for _, outcome in result.outcomes)
            result.outcome = runs.INCOMPLETE if failed else runs.DONE
    except InterruptedRunError:
        raise
    except Exception:
        result.outcome = runs.FAILED
        raise
    finally:
        with suppress(psycopg.Error):  # the connection may be lost; the record then stays without an outcome
            runs.finish(connection, run_id, result.outcome, result.numbers)
    return result


def _erase_all(
    connection: Connection,
    policy: RetentionPolicy,
    scan: Scan,
    options: RunOptions,
    counts: Counter[tuple[str, str]],
) -> None:
    """Erase the contacts that the scan finds, and add their outcomes to the counts by rule and outcome."""
    works = {rule.name: _RuleWork(rule, scan.held, scan.now, options.by) for rule in policy.rules}
    left = options.maximum
    for rule, found in scan.candidates(connection, options.on_window):
        work, rest = works[rule.name], found
        while rest and left:
            # Contacts may have been committed under an earlier time since they were counted: never exceed the maximum.
            size = min(options.batch_size, left)
            batch, rest = rest[:size], rest[size:]
            with options.defer_signals():
                outcomes = list(process_batch(connection, work.erase, batch, work.fail))
                work.record(outcomes)
                counts.update((rule.name, one.outcome) for one in outcomes)
                left -= sum(one.outcome in {ERASED, ANONYMISED} for one in outcomes)
                options.on_commit(outcomes)
            options.on_window()
            if options.pause:
                time.sleep(options.pause)


class _RuleWork:
    """The erasure of a rule's contacts, batch by batch, as parts of one erasure."""

    def __init__(self, rule: RetentionRule, held: HeldContacts, now: datetime, by: str) -> None:
        self._rule = rule
        self._held = held
        self._request = ErasureRequest(by=by, origin=rule.origin)
        self._done = ANONYMISED if rule.action == ANONYMISE else ERASED
        self._sql = _UNCHANGED.format(when=rule.when.sql)
        self._values = rule.when.bind(now)
        self._others: set[UUID] = set()
        self._found_others: set[UUID] = set()

    def erase(self, connection: Connection, batch: Sequence[Candidate]) -> list[RetentionOutcome]:
        """Erase the candidates that are unchanged and not held."""
        ids = [one.email_id for one in batch]
        locked = [email_id for (email_id,) in connection.execute(_LOCK, (ids,)).fetchall()]
        contacts = removal.lock_ids(connection, self._unchanged(connection, batch, locked)) if locked else []
        held = self._held.find(connection, [one.email_id for one in contacts])
        gone = [one for one in contacts if one.email_id not in held]
        if gone:
            self._erase(connection, gone)
        done = {one.email_id for one in gone}
        return [
            RetentionOutcome(
                email_id, self._rule.name, self._done if email_id in done else HELD if email_id in held else CHANGED
            )
            for email_id in ids
        ]

    def fail(self, one: Candidate, problem: str) -> RetentionOutcome:
        """Return the outcome of a candidate that failed."""
        return RetentionOutcome(one.email_id, self._rule.name, FAILED, problem)

    def record(self, outcomes: Iterable[RetentionOutcome]) -> None:
        """Note, after the commit, the contacts that the record counts as `also known in`."""
        self._others = (self._others | self._found_others) - {
            one.email_id for one in outcomes if one.outcome == self._done
        }
        self._found_others = set()

    def _unchanged(self, connection: Connection, batch: Sequence[Candidate], locked: list[UUID]) -> list[UUID]:
        """Return the locked candidates that have not changed since they were found and still match."""
        found = [[one.email_id for one in batch], [one.update_timestamp for one in batch]]
        rows = connection.execute(self._sql, [*found, *self._values, locked]).fetchall()
        return [email_id for (email_id,) in rows]

    def _erase(self, connection: Connection, gone: Sequence[LockedContact]) -> None:
        ids = {one.email_id for one in gone}
        if self._rule.action == ANONYMISE:
            add_to_counts(connection, self._rule.name, ids)
        found = accounts.find(connection, [one.addresses["primary_email"] for one in gone], ids)
        others = {email_id for found_ids in found.values() for email_id in found_ids}
        also = len(others - self._others) - len(self._others & ids)
        self._found_others |= others
        erase(connection, self._request, gone, also_known_in=also)
