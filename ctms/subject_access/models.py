"""The tables of access requests: records that name nobody, and their reports, which are kept for some days only."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, ForeignKey, ForeignKeyConstraint, Index, String, Text, text
from sqlalchemy.dialects.postgresql import JSON, UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class AccessRequest(Model):
    """An access request: time, requester (`client:<id>` or `operator:<user>`), `origin` (`api`, `command`) and counts.

    `contacts` were found, `copies` were to be read from backends, `failed` of which could not be. `result` is the part
    of the report that belongs to no contact; it is deleted at `expires_at`, together with the contacts' part.
    """

    __tablename__ = "access_requests"
    __table_args__ = (
        Index("idx_access_requests_requested_at", "requested_at"),
        Index("idx_access_requests_stored", "expires_at", postgresql_where=text("result IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    requested_by: Mapped[str] = mapped_column(Text)
    origin: Mapped[str] = mapped_column(String(20))
    contacts: Mapped[int]
    copies: Mapped[int]
    failed: Mapped[int]
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    result: Mapped[Any | None] = mapped_column(JSON)


class AccessRequestContact(Model):
    """A contact in a report. The row is deleted with the contact, so no erasure leaves it behind."""

    __tablename__ = "access_request_contacts"
    __table_args__ = (Index("idx_access_request_contacts_contact", "email_id"),)

    request_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), ForeignKey("access_requests.id", ondelete="CASCADE"), primary_key=True
    )
    email_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), ForeignKey("emails.email_id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int]
    content: Mapped[Any] = mapped_column(JSON)


class AccessRequestCopy(Model):
    """A backend's copy of a contact in a report; `content` is None until the background service has read it."""

    __tablename__ = "access_request_copies"
    __table_args__ = (
        ForeignKeyConstraint(
            ["request_id", "email_id"],
            ["access_request_contacts.request_id", "access_request_contacts.email_id"],
            ondelete="CASCADE",
        ),
        Index("idx_access_request_copies_pending", "backend", postgresql_where=text("content IS NULL")),
    )

    request_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    backend: Mapped[str] = mapped_column(String(63), primary_key=True)
    content: Mapped[Any | None] = mapped_column(JSON)
