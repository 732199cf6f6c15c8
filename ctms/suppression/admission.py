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

_LOCK_SHARED = f"SELECT pg_advisory_xact_lock_shared({_CLASS}, b) FROM unnest(%s::int[]) AS b"
_LOCK = f"SELECT pg_advisory_xact_lock({_CLASS}, b) FROM unnest(%s::int[]) AS b"
_FIND = f"SELECT true FROM {Suppression.__tablename__} WHERE fingerprint = ANY(%s) LIMIT 1"


class Admission:
    """Asks whether the addresses may be stored; in pipeline mode the answer comes with that of other statements.

    To be created before the transaction locks a row. Without an address, or without a key, every answer is yes.
    """

    def __init__(self, connection: Connection, *addresses: str | None) -> None:
        self._answer: Cursor | None = None
        found = [prints for address in addresses if address and (prints := fingerprints().all_of(address))]
        if found:
            # In one order, as those do who suppress: so no two wait for each other.
            connection.execute(_LOCK_SHARED, (sorted({_bucket(prints[0]) for prints in found}),))
            self._answer = connection.execute(_FIND, ([one for prints in found for one in prints],))

    def require(self) -> None:
        """Raise `Forbidden` when one of the addresses is suppressed."""
        if self._answer is not None and self._answer.fetchone():
            raise Forbidden(SUPPRESSED)


def is_suppressed(connection: Connection, address: str) -> bool:
    """Return whether the address is suppressed, in whatever spelling it was."""
    return connection.execute(_FIND, (fingerprints().all_of(address),)).fetchone() is not None


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
