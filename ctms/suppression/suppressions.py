"""Suppressing addresses, and letting them back in."""

from __future__ import annotations

from collections.abc import Iterable

from ctms.pool import Connection
from ctms.suppression.models import Suppression

ERASED = "erasure"
"""The source of a suppression that came with an erasure."""

BY_COMMAND = "command"
"""The source of one that an operator made."""

_ADD = f"""
    INSERT INTO {Suppression.__tablename__} (fingerprint, suppressed_at, source)
    SELECT f, clock_timestamp(), %s FROM unnest(%s::bytea[]) AS f
    ON CONFLICT DO NOTHING"""


def suppress(connection: Connection, found: Iterable[bytes], source: str) -> int:
    """Suppress the addresses of these fingerprints, for which `keep_out` was called.

    Returns how many were not suppressed yet; in pipeline mode nothing is waited for, and it is -1.
    """
    return connection.execute(_ADD, (source, sorted(set(found)))).rowcount
