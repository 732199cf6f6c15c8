"""Addresses that contacts lost in merges, as fingerprints: erasures find the contacts by them (`accounts`)."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model
from ctms.database.pool import Connection
from ctms.suppression.fingerprints import fingerprints


class MergedAddress(Model):
    """An address of a contact that was merged into this one, which does not have it itself: its fingerprint."""

    __tablename__ = "merged_addresses"
    __table_args__ = (Index("idx_merged_addresses_contact", "email_id"),)

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    email_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("emails.email_id", ondelete="CASCADE"), primary_key=True)


# What the source had lost in earlier merges is lost by the target, too.
_ADD = f"""
    INSERT INTO {MergedAddress.__tablename__} (fingerprint, email_id)
    SELECT f, %(target)s FROM unnest(%(fingerprints)s::bytea[]) AS f
    UNION SELECT fingerprint, %(target)s FROM {MergedAddress.__tablename__} WHERE email_id = %(source)s
    ON CONFLICT DO NOTHING"""

_FIND = f"SELECT email_id FROM {MergedAddress.__tablename__} WHERE fingerprint = %s ORDER BY email_id"


def add(connection: Connection, source: UUID, target: UUID, addresses: Iterable[str]) -> None:
    """Store the addresses that a merge drops; call it while the source exists. Without a key, nothing is stored."""
    found = [one for address in addresses if (one := fingerprints().of(address)) is not None]
    connection.execute(_ADD, {"source": source, "target": target, "fingerprints": found})


def find(connection: Connection, address: str) -> list[UUID]:
    """Return the contacts that lost the address, in any spelling, in a merge."""
    return [email_id for (email_id,) in connection.execute(_FIND, (fingerprints().of(address),)).fetchall()]


def by_position(addresses: Sequence[str]) -> tuple[list[int], list[bytes]]:
    """Return the fingerprints of the addresses, preceded by the position of each one's address; none without a key."""
    of = fingerprints().of
    pairs = [(position, one) for position, text in enumerate(addresses) if (one := of(text)) is not None]
    return [position for position, _ in pairs], [one for _, one in pairs]
