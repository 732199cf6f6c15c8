"""Suppressing addresses, and letting them back in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from ctms.pool import Connection
from ctms.suppression.models import Suppression

ERASED = "erasure"
"""The source of a suppression that came with an erasure."""

BY_COMMAND = "command"
"""The source of one that an operator made."""

IMPORTED = "import"
"""The source of those that came in a list."""


class Summary(NamedTuple):
    """How many addresses something suppressed, and when: the first one, the last one."""

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
    """Suppress the addresses of these fingerprints, for which `keep_out` was called.

    Returns how many were not suppressed yet; in pipeline mode nothing is waited for, and it is -1.
    """
    return connection.execute(_ADD, (source, sorted(set(found)))).rowcount


def let_back(connection: Connection, found: Sequence[bytes]) -> bool:
    """Let the address with these fingerprints be stored again; returns False when it was not suppressed."""
    return connection.execute(_REMOVE, (list(found),)).rowcount > 0


def summary(connection: Connection) -> list[Summary]:
    """Say how many addresses are suppressed, by what suppressed them; which ones nobody can tell."""
    return [Summary(*row) for row in connection.execute(_SUMMARY).fetchall()]
