"""The tables of retention: its runs, and the numbers that remain of anonymised contacts."""

from __future__ import annotations

import uuid
from datetime import date, datetime

from sqlalchemy import Boolean, Date, DateTime, Index, Integer, String, Text, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class RetentionRun(Model):
    """A run of the rules: its starter (`operator:<user>` or `worker`), maximum, numbers of contacts, and outcome.

    `found` is the number of contacts that the rules matched, more than `max_contacts` if the run erased nothing. A run
    in progress, or one that was killed, has no outcome.
    """

    __tablename__ = "retention_runs"
    __table_args__ = (Index("idx_retention_runs_started_at", "started_at"),)

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    started_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    started_by: Mapped[str] = mapped_column(Text)
    max_contacts: Mapped[int] = mapped_column(Integer)
    found: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    erased: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    anonymised: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    held: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    changed: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failed: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    outcome: Mapped[str | None] = mapped_column(String(20))


class AnonymousCount(Model):
    """A number of anonymised contacts that have these values in common.

    `kind` is `contacts`, or the list (`newsletters`, `waitlists`) of which `name` is an entry. A contact is counted
    once as a contact and once for each of its entries; nothing relates these numbers to each other.
    """

    __tablename__ = "anonymous_counts"

    month: Mapped[date] = mapped_column(Date, primary_key=True)
    rule: Mapped[str] = mapped_column(String(40), primary_key=True)
    created_year: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    country: Mapped[str] = mapped_column(String(2), primary_key=True)
    language: Mapped[str] = mapped_column(String(3), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    subscribed: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    contacts: Mapped[int] = mapped_column(Integer)
