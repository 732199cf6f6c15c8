"""What the two kinds of work have in common: contacts that wait for a receiver, handed over in batches and settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from ctms.database.pool import Connection
from ctms.outbox.lanes import Lane
from ctms.sync.verdicts import Verdict


@dataclass(frozen=True)
class Item:
    """A contact that waits: `key` names the row, `version` what it was like when it was read.

    `attempts` and `failures` are those before. `payload` is what the receiver gets.
    """

    key: Any
    email_id: str
    version: Any
    attempts: int
    failures: int
    payload: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Batch:
    """What goes into one call: the name of the `method`, the contacts, and when they were read."""

    method: str
    items: Sequence[Item]
    began: datetime | None = None


PROBED = 1000
"""Among so many that are due, those that were tried least are looked for: not among millions."""


def least_tried(items: Sequence[Item], limit: int) -> Sequence[Item]:
    """Return those of the items that were tried least, `limit` at the most."""
    return sorted(items, key=lambda item: item.attempts)[:limit]


class Work(Protocol):
    """What waits for one receiver in one lane."""

    lane: Lane
    max_batch: int
    timeout: float
    rate: float | None

    def claim(self, connection: Connection, limit: int, *, probing: bool) -> Sequence[Item]:
        """Return what is due, `limit` items at the most; when `probing`, what was tried least comes first."""

    def prepare(self, connection: Connection, items: Sequence[Item]) -> tuple[list[Batch], dict[Item, Verdict]]:
        """Return what to call the receiver with, and what becomes of those items that need no call."""

    def call(self, batch: Batch) -> Any:
        """Call the receiver; returns its answer. Raises what it raises."""

    def ended_late(self, connection: Connection, batch: Batch) -> None:
        """Note that a call with the batch, which was given up, has ended after all."""

    def settle(self, connection: Connection, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        """Store what became of the items, in the transaction of the connection."""
