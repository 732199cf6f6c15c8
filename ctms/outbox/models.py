"""The tables of pending changes, and of the states of backends and deletion handlers."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger, DateTime, Index, SmallInteger, String, Text, text
from sqlalchemy.dialects.postgresql import UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class OutboxEntry(Model):
    """A contact that a backend must receive: one row, however many edits there are.

    `version` changes with every edit; a push settles the row only if the version is still the one that was read before.
    `waiting_since` is the oldest edit that the backend has not received, `attempts` counts tries since, `failures`
    those that count against the contact itself. A parked row (`parked_at`) is not retried until the contact changes or
    an operator retries it.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        Index("idx_outbox_due", "backend", text("priority DESC"), "due_at", postgresql_where=text("parked_at IS NULL")),
        Index("idx_outbox_waiting", "backend", "waiting_since", postgresql_where=text("parked_at IS NULL")),
        Index("idx_outbox_parked", "backend", "reason", "email_id", postgresql_where=text("parked_at IS NOT NULL")),
    )

    backend: Mapped[str] = mapped_column(String(63), primary_key=True)
    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger)
    priority: Mapped[int] = mapped_column(SmallInteger)
    waiting_since: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    attempts: Mapped[int]
    failures: Mapped[int]
    parked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    reason: Mapped[str | None] = mapped_column(Text)


class Mirrored(Model):
    """A contact that a selective backend may have. The backend is notified when it no longer selects the contact.

    The table lacks contacts that were pushed while the backend wanted all (`Receiver.unlisted_at`).
    """

    __tablename__ = "outbox_mirrored"

    backend: Mapped[str] = mapped_column(String(63), primary_key=True)
    email_id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)


class Receiver(Model):
    """The state of a backend or deletion handler (`kind`): pause, circuit breaker, rate.

    `failures` are consecutive failures; until `open_until`, the end of the cool-down, it is not called. `next_call_at`
    enforces its rate. At `unlisted_at` a backend was last pushed contacts that `outbox_mirrored` does not list; since
    `synchronised_at` it has received every contact.
    """

    __tablename__ = "receivers"

    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    paused_why: Mapped[str | None] = mapped_column(Text)
    failures: Mapped[int]
    open_until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    next_call_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_error: Mapped[str | None] = mapped_column(Text)
    last_error_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_success_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    unlisted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    synchronised_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
