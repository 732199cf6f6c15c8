"""The common interface of the two kinds of work: contacts pending for a receiver, called in batches and settled."""

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
    """A pending contact: `key` names the row, `version` is that of the row when it was read.

    `attempts` and `failures` are those before. `payload` is passed to the receiver.
    """

    key: Any
    email_id: str
    version: Any
    attempts: int
    failures: int
    payload: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Batch:
    """The input of one call: the name of the `method`, the contacts, and when they were read."""

    method: str
    items: Sequence[Item]
    began: datetime | None = None


PROBED = 1000
"""Number of due entries among which those with the fewest attempts are selected, instead of among millions."""


def least_tried(items: Sequence[Item], limit: int) -> Sequence[Item]:
    """Return those of the items with the fewest attempts, at most `limit`."""
    return sorted(items, key=lambda item: item.attempts)[:limit]


class Work(Protocol):
    """The pending work of one receiver in one lane."""

    lane: Lane
    max_batch: int
    timeout: float
    rate: float | None

    def claim(self, connection: Connection, limit: int, *, probing: bool) -> Sequence[Item]:
        """Return due items, at most `limit`; when `probing`, those with the fewest attempts first."""

    def prepare(self, connection: Connection, items: Sequence[Item]) -> tuple[list[Batch], dict[Item, Verdict]]:
        """Return the batch for the receiver, and the verdicts of items that need no call."""

    def call(self, batch: Batch) -> Any:
        """Call the receiver and return its result. Raises its exceptions."""

    def handle_late_end(self, connection: Connection, batch: Batch) -> None:
        """Handle the end of a call that had timed out."""

    def settle(self, connection: Connection, batch: Batch, verdicts: Mapping[Item, Verdict]) -> None:
        """Store the verdicts, in the transaction of the connection."""
