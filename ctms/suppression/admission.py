"""Whether an address may be stored: a forgotten one may not, also when it comes while it is being forgotten.

Who writes an address and who suppresses one take a lock of PostgreSQL's that both know (`pg_advisory_xact_lock`), the
writers shared, before any row: so one of them comes first, and the later one sees what the earlier one did.
"""

from __future__ import annotations

from collections.abc import Iterable

from ctms.errors import Forbidden
from ctms.pool import Connection, Cursor
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.models import Suppression

SUPPRESSED = "Address is suppressed"

_CLASS = int.from_bytes(b"CTMS")
_BUCKETS = 64
"""Few, so that who suppresses a thousand addresses at once does not fill the server's table of locks."""

_LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({_CLASS}, %s)"
_LOCK = f"SELECT pg_advisory_xact_lock({_CLASS}, b) FROM unnest(%s::int[]) AS b"
_FIND = f"SELECT true FROM {Suppression.__tablename__} WHERE fingerprint = ANY(%s) LIMIT 1"


class Admission:
    """Asks whether the address may be stored; on a connection in pipeline mode the answer comes with that of others.

    To be made before the transaction locks a row. Without an address, or without a key, every answer is yes.
    """

    def __init__(self, connection: Connection, address: str | None) -> None:
        self._answer: Cursor | None = None
        found = fingerprints().all_of(address) if address else ()
        if found:
            connection.execute(_LOCK_SHARED, (_bucket(found[0]),))
            self._answer = connection.execute(_FIND, (found,))

    def require(self) -> None:
        """Raise `Forbidden` when the address is suppressed."""
        if self._answer is not None and self._answer.fetchone():
            raise Forbidden(SUPPRESSED)


def keep_out(connection: Connection, found: Iterable[bytes]) -> None:
    """Wait for those who write the addresses of these fingerprints, and let nobody write them before the commit.

    To be called before the transaction locks a row.
    """
    connection.execute(_LOCK, (sorted({_bucket(fingerprint) for fingerprint in found}),))


def keep_all_out(connection: Connection) -> None:
    """As `keep_out`, for whatever address: where it is not known yet which ones they are."""
    connection.execute(_LOCK, (list(range(_BUCKETS)),))


def _bucket(fingerprint: bytes) -> int:
    return fingerprint[0] % _BUCKETS
