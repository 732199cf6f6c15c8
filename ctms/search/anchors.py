"""The index scans that find the contacts of a condition, and the choice among them.

A scan selects ids of contacts. Most indexes return these in order, so that a page reads no more than it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple


class Age(NamedTuple):
    """An age in calendar years and hours."""

    years: int
    hours: int

    def before(self, now: datetime) -> datetime:
        """Return the time that was this long before `now`. A year before 29 February is 28 February."""
        try:
            then = now.replace(year=now.year - self.years)
        except ValueError:
            then = now.replace(year=now.year - self.years, day=28)
        return then - timedelta(hours=self.hours)


def bind(values: Sequence[Any], now: datetime) -> list[Any]:
    """Return the values as parameters; ages count back from `now`."""
    return [value.before(now) if isinstance(value, Age) else value for value in values]


@dataclass(frozen=True)
class IndexScan:
    """A query that an index serves: it selects `email_id`, once for each contact, with a `%s` for each value."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class AnyOf:
    """An anchor for each branch of an `or`; together they find the contacts of all branches."""

    branches: tuple[Anchors, ...]


Anchors = tuple[IndexScan | AnyOf, ...]
"""Alternatives: each of them finds all contacts of a condition."""


def scans(anchors: Anchors) -> Iterator[IndexScan]:
    """Yield all scans among the alternatives."""
    for anchor in anchors:
        if isinstance(anchor, IndexScan):
            yield anchor
        else:
            for branch in anchor.branches:
                yield from scans(branch)


class Chosen(NamedTuple):
    """Scans that together find all contacts of a condition, and an estimate of the number of ids that they find."""

    scans: list[IndexScan]
    estimate: float


def choose(anchors: Anchors, estimate: Callable[[IndexScan], float]) -> Chosen:
    """Return the alternative that finds the fewest ids."""
    found = []
    for anchor in anchors:
        if isinstance(anchor, IndexScan):
            found.append(Chosen([anchor], estimate(anchor)))
        else:
            branches = [choose(branch, estimate) for branch in anchor.branches]
            every = dict.fromkeys(scan for one in branches for scan in one.scans)
            found.append(Chosen(list(every), sum(one.estimate for one in branches)))
    return min(found, key=lambda one: one.estimate)
