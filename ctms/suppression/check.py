"""The check that an address may be stored: a suppressed one may not, not even while it is being suppressed.

Writing an address and suppressing it take the same advisory lock (`pg_advisory_xact_lock`) before they lock any row.
Writers share the lock, a suppression holds it alone. So one of the two comes first, and the other sees its result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ctms.database.pool import Connection, Cursor
from ctms.errors import Forbidden
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.models import Suppression

SUPPRESSED = "Address is suppressed"

_CLASS = int.from_bytes(b"CTMS")
_BUCKETS = 64
"""Few, so that suppressing a thousand addresses at once does not fill the server's lock table."""

_LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({_CLASS}, b) FROM unnest(%s::int[]) AS b"
_LOCK = f"SELECT pg_advisory_xact_lock({_CLASS}, b) FROM unnest(%s::int[]) AS b"
_SELECT = f"SELECT fingerprint FROM {Suppression.__tablename__} WHERE fingerprint = ANY(%s)"
_FIND = f"SELECT true FROM {Suppression.__tablename__} WHERE fingerprint = ANY(%s) LIMIT 1"


class SuppressionCheck:
    """A check that none of the addresses is suppressed; in pipeline mode it costs no round trip of its own.

    Create it before the transaction locks a row. Without an address or without a key it always passes.
    """

    def __init__(self, connection: Connection, *addresses: str | None) -> None:
        self._result: Cursor | None = None
        found = [prints for address in addresses if address and (prints := fingerprints().all_of(address))]
        if found:
            # Sorted, as in `block_writers`: a common order prevents deadlocks.
            connection.execute(_LOCK_SHARED, (sorted({_bucket(prints[0]) for prints in found}),))
            self._result = connection.execute(_FIND, ([one for prints in found for one in prints],))

    def raise_if_suppressed(self) -> None:
        """Raise `Forbidden` when one of the addresses is suppressed."""
        if self._result is not None and self._result.fetchone():
            raise Forbidden(SUPPRESSED)


def find_suppressed(connection: Connection, addresses: Collection[str]) -> set[str]:
    """Return which of the addresses are suppressed; the others cannot be suppressed until the transaction ends.

    Call it before the transaction locks a row. Without a key it returns none.
    """
    found = {address: prints for address in addresses if (prints := fingerprints().all_of(address))}
    if not found:
        return set()
    connection.execute(_LOCK_SHARED, (sorted({_bucket(prints[0]) for prints in found.values()}),))
    wanted = [one for prints in found.values() for one in prints]
    suppressed = {bytes(one) for (one,) in connection.execute(_SELECT, (wanted,)).fetchall()}
    return {address for address, prints in found.items() if not suppressed.isdisjoint(prints)}


def is_suppressed(connection: Connection, address: str) -> bool:
    """Return whether the address is suppressed, in any spelling."""
    return connection.execute(_FIND, (fingerprints().all_of(address),)).fetchone() is not None


def block_writers(connection: Connection, found: Iterable[bytes]) -> None:
    """Wait for writers of the addresses with these fingerprints, and block new ones until the transaction ends.

    Call it before the transaction locks a row.
    """
    connection.execute(_LOCK, (sorted({_bucket(fingerprint) for fingerprint in found}),))


def block_all_writers(connection: Connection) -> None:
    """Block the writers of all addresses, as `block_writers` does, when the addresses are not known yet."""
    connection.execute(_LOCK, (list(range(_BUCKETS)),))


def _bucket(fingerprint: bytes) -> int:
    return fingerprint[0] % _BUCKETS
