"""The tables of the history. Triggers on the tables of contacts fill them (revision c7e25a019d38)."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, Index, Sequence, String, Text, text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class SubscriptionEvent(Model):
    """A change of a subscription or of a consent of a contact; see `ctms.history.events` for the values.

    `subscribed` is the state after the change, NULL if the entry was removed. `actor` is the API client
    (`client:<id>`), operator (`operator:<user>`) or rule that made the change, NULL if the writer is unknown.
    `merged_from` is the contact that the event happened to, if it has been merged into this one since.
    """

    __tablename__ = "subscription_events"
    __table_args__ = (
        Index("idx_subscription_events_contact", "email_id", "recorded_at", "event_id"),
        {"postgresql_partition_by": "RANGE (recorded_at)"},
    )

    recorded_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), primary_key=True, server_default=text("clock_timestamp()")
    )
    event_id: Mapped[int] = mapped_column(BigInteger, Sequence("subscription_events_event_id_seq"), primary_key=True)
    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True))
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(255))
    action: Mapped[str] = mapped_column(String(20))
    subscribed: Mapped[bool | None]
    source: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[str | None] = mapped_column(Text)
    evidence: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    merged_from: Mapped[uuid.UUID | None] = mapped_column(UUID(as_uuid=True))


class Tombstone(Model):
    """A deleted contact: its id, the time, and the contact that it was merged into."""

    __tablename__ = "contact_tombstones"
    __table_args__ = (
        Index("idx_contact_tombstones_deleted_at", "deleted_at", "email_id"),
        Index("idx_contact_tombstones_merged_into", "merged_into", postgresql_where=text("merged_into IS NOT NULL")),
    )

    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    deleted_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    merged_into: Mapped[uuid.UUID | None] = mapped_column(UUID(as_uuid=True))


class MofoRelevanceChange(Model):
    """The time at which `mofo_relevant` of a contact last changed."""

    __tablename__ = "mofo_relevance_changes"
    __table_args__ = (Index("idx_mofo_relevance_changes_changed_at", "changed_at", "email_id"),)

    email_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("emails.email_id", ondelete="CASCADE"), primary_key=True)
    changed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class DeletionFeed(Model):
    """The start of the recorded deletions, in a single row: earlier ones are unknown."""

    __tablename__ = "deletion_feed"
    __table_args__ = (CheckConstraint("one_row"),)

    one_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    recorded_since: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class AuditEntry(Model):
    """An administrative act: `action` is the command, `target` the name or id of what it changed. Append-only."""

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    recorded_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=text("clock_timestamp()"))
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(100))
    target: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
