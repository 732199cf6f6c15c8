"""Requests that clients may repeat safely: the response to a request with an `Idempotency-Key` is stored for a day.

The key and the response are stored in the transaction of the request: either all of it is committed, or nothing. A
repeated request waits for one in progress with the same key. Stored are a hash of the key, and a hash of the request
that is keyed with the key itself, so that neither reveals what the request contained.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from datetime import datetime
from threading import Event

from sqlalchemy import DateTime, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model
from ctms.database.pool import Connection
from ctms.errors import Invalid
from ctms.words import counted

logger = logging.getLogger(__name__)

MAX_KEY_LENGTH = 255

KEPT_HOURS = 24
"""Hours for which a response is stored."""

OTHER_REQUEST = "Idempotency-Key was used for another request"

BATCH = 1000
"""Number of rows per transaction of the purge."""


class IdempotencyKey(Model):
    """A key of a client, with the hash of the request and its response."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("idx_idempotency_keys_created_at", "created_at"),)

    client_id: Mapped[str] = mapped_column(
        String(255), ForeignKey("api_client.client_id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    response: Mapped[str | None] = mapped_column(Text)


_TABLE = IdempotencyKey.__tablename__
_EXPIRED = f"clock_timestamp() - interval '{KEPT_HOURS} hours'"

# It waits for a concurrent transaction with the same key.
_BEGIN = f"""
    INSERT INTO {_TABLE} AS k (client_id, key, digest, created_at) VALUES (%s, %s, %s, clock_timestamp())
    ON CONFLICT (client_id, key) DO UPDATE
    SET digest = excluded.digest, created_at = excluded.created_at, response = NULL
    WHERE k.created_at < {_EXPIRED}
    RETURNING true"""
_EARLIER = f"SELECT digest, response FROM {_TABLE} WHERE client_id = %s AND key = %s"
_STORE = f"UPDATE {_TABLE} SET response = %s WHERE client_id = %s AND key = %s"
_PURGE = f"""
    DELETE FROM {_TABLE} WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {_TABLE} WHERE created_at < {_EXPIRED} ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED))"""


def check_key(key: str) -> None:
    """Raise `Invalid` unless the value of the header is a key.

    The server passes a value that is not ASCII as an empty one. Without this check, the client would repeat its request
    in the belief that it has a key.
    """
    if len(key) > MAX_KEY_LENGTH:
        message, kind = f"String should have at most {MAX_KEY_LENGTH} characters", "string_too_long"
    elif not key.strip() or not key.isascii():
        message, kind = "Input should be ASCII, and not empty", "idempotency_key"
    else:
        return
    raise Invalid([{"loc": ["header", "Idempotency-Key"], "msg": message, "type": kind}])


def begin(connection: Connection, client_id: str, key: str, request: str) -> str | None:
    """Store the key of a request, or return the response of an earlier one with this key.

    Raises `Invalid` if the earlier request was another one.
    """
    hashed, digest = _hash(key), hmac.digest(key.encode(errors="surrogateescape"), request.encode(), "sha256")
    while True:
        if connection.execute(_BEGIN, (client_id, hashed, digest)).fetchone():
            return None
        row = connection.execute(_EARLIER, (client_id, hashed)).fetchone()
        if row is not None:  # else it was purged meanwhile
            break
    known, response = row
    if bytes(known) != digest:
        raise Invalid(OTHER_REQUEST)
    return str(response)


def finish(connection: Connection, client_id: str, key: str, response: str) -> None:
    """Store the response to a request, without personal data besides ids."""
    connection.execute(_STORE, (response, client_id, _hash(key)))


def purge(connection: Connection, stopping: Event) -> int:
    """Delete the keys that are older than a day, in batches; return their number."""
    number = 0
    while not stopping.is_set():
        purged = connection.execute(_PURGE, (BATCH,)).rowcount
        number += purged
        if purged < BATCH:
            break
    if number:
        logger.info("%s purged", counted(number, "idempotency key"))
    return number


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
