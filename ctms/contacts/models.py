"""The tables of contacts: one row of `emails`, at most one row for each sub-document, any number for each list.

Names and types are those of existing deployments (revision 2b00e4069aea). Requests read and write these tables with raw
SQL (`documents`, `queries`, `commands`); migrations use the models.
"""

from __future__ import annotations

import uuid
from datetime import date, datetime
from typing import Annotated, Any

from sqlalchemy import Date, DateTime, ForeignKey, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSON, UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model

CreateTimestamp = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
UpdateTimestamp = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]


class Email(Model):
    """A contact: its address and the data of the person; `email_id` identifies the contact everywhere."""

    __tablename__ = "emails"
    __table_args__ = (
        Index("bulk_read_index", "update_timestamp", "email_id"),
        Index("idx_email_primary_unique_email_lower", text("lower(primary_email)"), unique=True),
        # For searches (`search`), whose pages are in the order of ids.
        Index("idx_emails_mailing_country", text("lower(mailing_country)"), "email_id"),
        Index("idx_emails_email_lang", text("lower(email_lang)"), "email_id"),
        Index("idx_emails_create_timestamp", "create_timestamp", "email_id"),
        Index("idx_emails_opted_out", "email_id", postgresql_where=text("has_opted_out_of_email")),
    )

    email_id: Mapped[uuid.UUID] = mapped_column(
        UUID(as_uuid=True), primary_key=True, server_default=text("gen_random_uuid()")
    )
    primary_email: Mapped[str] = mapped_column(String(255), unique=True)
    basket_token: Mapped[str | None] = mapped_column(String(255), unique=True)
    sfdc_id: Mapped[str | None] = mapped_column(String(255), index=True)
    first_name: Mapped[str | None] = mapped_column(String(255))
    last_name: Mapped[str | None] = mapped_column(String(255))
    mailing_country: Mapped[str | None] = mapped_column(String(255))
    email_format: Mapped[str | None] = mapped_column(String(1))
    email_lang: Mapped[str | None] = mapped_column(String(5))
    has_opted_out_of_email: Mapped[bool | None]
    unsubscribe_reason: Mapped[str | None] = mapped_column(Text)
    create_timestamp: Mapped[CreateTimestamp]
    update_timestamp: Mapped[UpdateTimestamp]
    double_opt_in: Mapped[bool | None]


class _Row:
    """The columns that the tables of the other parts share."""

    id: Mapped[int] = mapped_column(primary_key=True)
    create_timestamp: Mapped[CreateTimestamp]
    update_timestamp: Mapped[UpdateTimestamp]


class _SubDocument(_Row):
    email_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("emails.email_id", ondelete="CASCADE"), unique=True)


class _Entry(_Row):
    email_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("emails.email_id", ondelete="CASCADE"))


class Amo(_SubDocument, Model):
    """The person's data from addons.mozilla.org."""

    __tablename__ = "amo"

    add_on_ids: Mapped[str | None] = mapped_column(String(500))
    display_name: Mapped[str | None] = mapped_column(String(255))
    email_opt_in: Mapped[bool | None]
    language: Mapped[str | None] = mapped_column(String(5))
    last_login: Mapped[date | None] = mapped_column(Date)
    location: Mapped[str | None] = mapped_column(String(255))
    profile_url: Mapped[str | None] = mapped_column(String(40))
    user: Mapped[bool | None]
    user_id: Mapped[str | None] = mapped_column(String(40), index=True)
    username: Mapped[str | None] = mapped_column(String(100))


class Fxa(_SubDocument, Model):
    """The person's account; its `fxa_id` belongs to one contact only."""

    __tablename__ = "fxa"
    __table_args__ = (Index("idx_fxa_primary_email_lower", text("lower(primary_email)")),)

    fxa_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    primary_email: Mapped[str | None] = mapped_column(String(255), index=True)
    created_date: Mapped[str | None] = mapped_column(String(50))
    lang: Mapped[str | None] = mapped_column(String(255))
    first_service: Mapped[str | None] = mapped_column(String(50))
    account_deleted: Mapped[bool | None]


class Mofo(_SubDocument, Model):
    """The person's data from the Mozilla Foundation."""

    __tablename__ = "mofo"

    mofo_email_id: Mapped[str | None] = mapped_column(String(255), unique=True)
    mofo_contact_id: Mapped[str | None] = mapped_column(String(255), index=True)
    mofo_relevant: Mapped[bool | None]


class NewsletterEntry(_Entry, Model):
    """A newsletter that the contact is or was subscribed to."""

    __tablename__ = "newsletters"
    __table_args__ = (
        UniqueConstraint("email_id", "name", name="uix_email_name"),
        Index("idx_newsletters_name", "name", "email_id"),
    )

    name: Mapped[str] = mapped_column(String(255))
    subscribed: Mapped[bool | None]
    format: Mapped[str | None] = mapped_column(String(1))
    lang: Mapped[str | None] = mapped_column(String(5))
    source: Mapped[str | None] = mapped_column(Text)
    unsub_reason: Mapped[str | None] = mapped_column(Text)


class WaitlistEntry(_Entry, Model):
    """A waitlist that the contact is or was on, with the fields that its rules allow."""

    __tablename__ = "waitlists"
    __table_args__ = (
        UniqueConstraint("email_id", "name", name="uix_wl_email_name"),
        Index("idx_waitlists_name", "name", "email_id"),
    )

    name: Mapped[str] = mapped_column(String(255))
    source: Mapped[str | None] = mapped_column(Text)
    fields: Mapped[dict[str, Any]] = mapped_column(JSON, server_default=text("'{}'::json"))
    subscribed: Mapped[bool]
    unsub_reason: Mapped[str | None] = mapped_column(Text)
