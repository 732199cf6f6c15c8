"""Opt out the contacts with a batch of addresses, or preview that: the work of `opt-out` (`ctms.bulk.batches`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ctms.bulk.batches import FOUND, UNKNOWN, ItemOutcome
from ctms.bulk.worklist import WorkItem
from ctms.contacts import optouts
from ctms.contacts.optouts import OptOut, OptOutMatch
from ctms.database.pool import Connection

OPTED_OUT = "opted out"
OPTED_OUT_BEFORE = "opted out before"


def opt_out(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
    """Opt out the contacts with the addresses of a batch; several contacts may have an address."""
    return _outcomes(items, optouts.opt_out(connection, _wanted(items)), OPTED_OUT)


def preview(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
    """Return the outcomes for a batch without changing anything."""
    return _outcomes(items, optouts.preview(connection, _wanted(items)), FOUND)


def _wanted(items: Sequence[WorkItem]) -> list[OptOut]:
    return [OptOut(item.address or "", item.at, item.reason) for item in items]


def _outcomes(items: Sequence[WorkItem], matched: Iterable[OptOutMatch], new: str) -> list[ItemOutcome]:
    by_position = defaultdict(list)
    for match in matched:
        by_position[match.position].append(match)
    outcomes = []
    for position, item in enumerate(items):
        outcomes += [
            ItemOutcome(item, new if match.new else OPTED_OUT_BEFORE, match.email_id) for match in by_position[position]
        ] or [ItemOutcome(item, UNKNOWN)]
    return outcomes
