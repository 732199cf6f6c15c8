"""The contacts that match a rule, found in windows of the table by the time of their last change.

A window is one short statement that reads a number of contacts, whatever the rules match, through the index on
`update_timestamp`. So no transaction is long, and a contact that changes moves past the end of the scan.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from ctms.database.pool import Connection
from ctms.retention.holds import HeldContacts
from ctms.retention.policy import RetentionPolicy, RetentionRule

WINDOW = 5_000
"""Contacts that one statement reads."""

_LAST = -1
_FIRST = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

# The subquery with OFFSET 0 is planned for a single contact: it looks entries up in their indexes, where a plan for all
# contacts of the window would read the whole tables of newsletters and waitlists.
_WINDOW = f"""
    WITH e AS MATERIALIZED (
        SELECT * FROM emails
        WHERE (update_timestamp, email_id) > (%s, %s) AND update_timestamp < %s
        ORDER BY update_timestamp, email_id LIMIT %s),
    found AS (
        SELECT r.rule, e.email_id, e.update_timestamp FROM e, LATERAL (SELECT CASE {{cases}} END AS rule OFFSET 0) r)
    SELECT rule, email_id, update_timestamp FROM found WHERE rule IS NOT NULL
    UNION ALL (
        SELECT {_LAST}, email_id, update_timestamp FROM e ORDER BY update_timestamp DESC, email_id DESC LIMIT 1)"""


class Candidate(NamedTuple):
    """A contact that matched a rule, and the time of its last change then."""

    email_id: UUID
    update_timestamp: datetime


class Scan:
    """A scan of the contacts that have not changed since `now`, by the database's clock; each has one rule at most."""

    def __init__(self, policy: RetentionPolicy, now: datetime, window: int = WINDOW) -> None:
        self._policy = policy
        self.now = now
        self.held = HeldContacts(policy.hold)
        self._window = window
        cases = " ".join(f"WHEN {rule.when.sql} THEN {number}" for number, rule in enumerate(policy.rules))
        self._sql = _WINDOW.format(cases=cases)
        self._values = [value for rule in policy.rules for value in rule.when.bind(now)]

    def candidates(
        self, connection: Connection, on_window: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[RetentionRule, list[Candidate]]]:
        """Yield the matches of each window, by rule; `on_window` is called before each window, and may raise."""
        after: tuple[Any, ...] = _FIRST
        while True:
            on_window()
            rows = connection.execute(self._sql, [*after, self.now, self._window, *self._values]).fetchall()
            found: dict[int, list[Candidate]] = defaultdict(list)
            for number, *row in rows:
                found[number].append(Candidate(*row))
            if not found[_LAST]:
                return
            last = found.pop(_LAST)[0]
            after = (last.update_timestamp, last.email_id)
            for number in sorted(found):
                yield self._policy.rules[number], found[number]

    def count(
        self,
        connection: Connection,
        limit: int | None = None,
        on_window: Callable[[], None] = lambda: None,
        on_found: Callable[[RetentionRule, Sequence[Candidate], Collection[UUID]], None] = lambda *_: None,
    ) -> CandidateCounts:
        """Count the matches that are not held, and those that are, by rule; stop when more than `limit` are found.

        `on_found` receives the matches of each window, and the ids of the held ones.
        """
        counts = CandidateCounts(Counter(), Counter())
        for rule, found in self.candidates(connection, on_window):
            held = self.held.find(connection, [one.email_id for one in found])
            on_found(rule, found, held)
            counts.due[rule.name] += len(found) - len(held)
            counts.held[rule.name] += len(held)
            if limit is not None and counts.due.total() > limit:
                break
        return counts


class CandidateCounts(NamedTuple):
    """The numbers of contacts by rule: due ones, and those under a legal hold."""

    due: Counter[str]
    held: Counter[str]
