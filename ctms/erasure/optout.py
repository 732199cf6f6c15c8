"""Opt out the contacts with a batch of addresses, or preview that: the work of `opt-out` (`ctms.bulk.batches`)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ctms.bulk.batches import FOUND, UNKNOWN, Outcome
from ctms.bulk.worklist import Item
from ctms.contacts import optouts
from ctms.contacts.optouts import OptOut, OptOutMatch
from ctms.pool import Connection

OPTED_OUT = "opted out"
OPTED_OUT_BEFORE = "opted out before"


def opt_out(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
    """Opt out the contacts with the addresses of a batch; several contacts may have an address."""
    return _outcomes(items, optouts.opt_out(connection, _wanted(items)), OPTED_OUT)


def preview(connection: Connection, items: Sequence[Item]) -> list[Outcome]:
    """Return the outcomes for a batch without changing anything."""
    return _outcomes(items, optouts.preview(connection, _wanted(items)), FOUND)


def _wanted(items: Sequence[Item]) -> list[OptOut]:
    return [OptOut(item.address or "", item.at, item.reason) for item in items]


def _outcomes(items: Sequence[Item], matched: Iterable[OptOutMatch], new: str) -> list[Outcome]:
    by_position = defaultdict(list)
    for match in matched:
        by_position[match.position].append(match)
    outcomes = []
    for position, item in enumerate(items):
        outcomes += [
            Outcome(item, new if match.new else OPTED_OUT_BEFORE, match.email_id) for match in by_position[position]
        ] or [Outcome(item, UNKNOWN)]
    return outcomes
