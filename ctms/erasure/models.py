"""The tables of erasures: records without personal data, and pending work of deletion handlers and backends."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class Erasure(Model):
    """A deletion of one or more contacts: time, requester (`client:<id>`, `operator:<user>` or `worker`), and counts.

    `origin` is the kind of request: `delete` (the API's DELETE), `api` (`POST /erasures`), `command`, or
    `retention:<rule>`. `unknown`
    counts requested items without a contact, except addresses that were erased before; `also_known_in` counts other
    contacts with an erased address as their account address, and is None for erasures by earlier versions.
    `follows` are earlier erasures of the same addresses that were not done then: this one is not done before they are.
    `request_key` and `request_digest` are keyed fingerprints of an `Idempotency-Key` and of its request.
    """

    __tablename__ = "erasures"
    __table_args__ = (
        Index("idx_erasures_requested_at", "requested_at"),
        Index("idx_erasures_follows", "follows", postgresql_using="gin", postgresql_where=text("follows IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    requested_by: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(String(63))
    forget: Mapped[bool]
    contacts: Mapped[int]
    unknown: Mapped[int]
    also_known_in: Mapped[int | None]
    follows: Mapped[list[uuid.UUID] | None] = mapped_column(ARRAY(UUID(as_uuid=True)))
    request_key: Mapped[bytes | None] = mapped_column(LargeBinary, unique=True)
    request_digest: Mapped[bytes | None] = mapped_column(LargeBinary)


class ErasedAddress(Model):
    """The fingerprint of an address that was erased."""

    __tablename__ = "erasure_addresses"
    __table_args__ = (Index("idx_erasure_addresses_erasure", "erasure_id"),)

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    erasure_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), ForeignKey("erasures.id", ondelete="CASCADE"), primary_key=True
    )


class ErasureHandler(Model):
    """The progress of a deletion handler with an erasure: numbers of contacts, each in one of four states.

    `done` are erased but unverified contacts; `reason` is the last one that parked or delayed some, None once nothing
    is pending, parked or being verified.
    """

    __tablename__ = "erasure_handlers"
    __table_args__ = (
        Index("idx_erasure_handlers_open", "started_at", postgresql_where=text("pending > 0 OR parked > 0")),
    )

    erasure_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), ForeignKey("erasures.id", ondelete="CASCADE"), primary_key=True
    )
    handler: Mapped[str] = mapped_column(String(63), primary_key=True)
    pending: Mapped[int]
    done: Mapped[int]
    verified: Mapped[int]
    parked: Mapped[int]
    reason: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ErasureTask(Model):
    """A contact that a deletion handler has yet to erase or to verify (`step`); the row is deleted when that is done.

    It contains the identities that the handler needs, and is the only place where those of an erased contact are still
    stored.
    """

    __tablename__ = "erasure_tasks"
    __table_args__ = (
        ForeignKeyConstraint(
            ["erasure_id", "handler"], ["erasure_handlers.erasure_id", "erasure_handlers.handler"], ondelete="CASCADE"
        ),
        Index("idx_erasure_tasks_due", "handler", "due_at", postgresql_where=text("parked_at IS NULL")),
        Index("idx_erasure_tasks_waiting", "handler", "waiting_since", postgresql_where=text("parked_at IS NULL")),
        Index("idx_erasure_tasks_parked", "handler", postgresql_where=text("parked_at IS NOT NULL")),
        Index("idx_erasure_tasks_erasure", "erasure_id", "handler"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    erasure_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True))
    handler: Mapped[str] = mapped_column(String(63))
    identities: Mapped[Any] = mapped_column(JSONB)
    step: Mapped[str] = mapped_column(String(10))
    waiting_since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attempts: Mapped[int]
    failures: Mapped[int]
    parked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)


class ErasureBackend(Model):
    """The progress of a backend with an erasure: numbers of contacts, each in one of three states.

    `done` are those that the backend deleted or never had; `reason` is the last one that parked or delayed a deletion,
    None once nothing is pending or parked.
    """

    __tablename__ = "erasure_backends"
    __table_args__ = (
        Index("idx_erasure_backends_open", "backend", "started_at", postgresql_where=text("pending > 0 OR parked > 0")),
    )

    erasure_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), ForeignKey("erasures.id", ondelete="CASCADE"), primary_key=True
    )
    backend: Mapped[str] = mapped_column(String(63), primary_key=True)
    pending: Mapped[int]
    done: Mapped[int]
    parked: Mapped[int]
    reason: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class ErasureDeletion(Model):
    """A contact that a backend has yet to delete for an erasure; the row is deleted when the backend has done so.

    Or it is to be deleted because it was merged into another contact: then there is no erasure. `ctms.outbox.deletions`
    reads and writes these rows. `parked` is true while the contact is parked in the outbox.
    """

    __tablename__ = "erasure_deletions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["erasure_id", "backend"], ["erasure_backends.erasure_id", "erasure_backends.backend"], ondelete="CASCADE"
        ),
        Index("idx_erasure_deletions_contact", "backend", "email_id"),
        Index("idx_erasure_deletions_erasure", "erasure_id", "backend", "email_id"),
        Index("idx_erasure_deletions_merged_into", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    erasure_id: Mapped[uuid.UUID | None] = mapped_column(UUID(as_uuid=True))
    backend: Mapped[str] = mapped_column(String(63))
    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True))
    merged_into: Mapped[uuid.UUID | None] = mapped_column(UUID(as_uuid=True))
    parked: Mapped[bool]
