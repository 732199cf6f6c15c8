"""The table of exports over the API: records that name nobody. Their files are in `CTMS_EXPORT_DIR`."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Index, String, Text, text
from sqlalchemy.dialects.postgresql import JSON, UUID
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class Export(Model):
    """An export: time, requester (`client:<id>`), and what was asked for until it expires.

    `attempts` were begun; `manifest` describes the files of a finished one, `problem` is why it failed.
    """

    __tablename__ = "exports"
    __table_args__ = (
        Index("idx_exports_unfinished", "requested_at", postgresql_where=text("finished_at IS NULL")),
        Index("idx_exports_stored", "expires_at", postgresql_where=text("request IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(UUID(as_uuid=True), primary_key=True)
    requested_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    requested_by: Mapped[str] = mapped_column(Text)
    format: Mapped[str] = mapped_column(String(20))
    request: Mapped[Any | None] = mapped_column(JSON)
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    contacts: Mapped[int | None] = mapped_column(BigInteger)
    manifest: Mapped[Any | None] = mapped_column(JSON)
    problem: Mapped[str | None] = mapped_column(Text)
