"""Suppress addresses, lift suppressions and count them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from ctms.database.pool import Connection
from ctms.suppression.models import Suppression

SOURCE_ERASURE = "erasure"
"""The source of suppressions by an erasure."""

SOURCE_COMMAND = "command"
"""The source of suppressions by an operator's command."""

SOURCE_IMPORT = "import"
"""The source of suppressions from an imported list."""


class SuppressionSummary(NamedTuple):
    """The number of addresses that a source has suppressed, and the times of the first and the last."""

    source: str
    addresses: int
    first: datetime
    last: datetime


_ADD = f"""
    INSERT INTO {Suppression.__tablename__} (fingerprint, suppressed_at, source)
    SELECT f, clock_timestamp(), %s FROM unnest(%s::bytea[]) AS f
    ON CONFLICT DO NOTHING"""
_REMOVE = f"DELETE FROM {Suppression.__tablename__} WHERE fingerprint = ANY(%s)"
_SUMMARY = f"""
    SELECT source, count(*), min(suppressed_at), max(suppressed_at)
    FROM {Suppression.__tablename__} GROUP BY source ORDER BY source"""


def suppress(connection: Connection, found: Iterable[bytes], source: str) -> int:
    """Suppress the addresses with these fingerprints; call `block_writers` first.

    Returns how many were not suppressed before; in pipeline mode the count is not available, and it returns -1.
    """
    return connection.execute(_ADD, (source, sorted(set(found)))).rowcount


def unsuppress(connection: Connection, found: Sequence[bytes]) -> bool:
    """Lift the suppression of the address with these fingerprints. Returns False when it was not suppressed."""
    return connection.execute(_REMOVE, (list(found),)).rowcount > 0


def summarize(connection: Connection) -> list[SuppressionSummary]:
    """Return how many addresses each source has suppressed. The addresses themselves are not stored."""
    return [SuppressionSummary(*row) for row in connection.execute(_SUMMARY).fetchall()]
