"""The table of suppressed addresses."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import DateTime, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from ctms.database.engine import Model


class Suppression(Model):
    """An address that must not be stored: its fingerprint, when it was suppressed, and by what (`source`)."""

    __tablename__ = "suppressions"

    fingerprint: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    suppressed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    source: Mapped[str] = mapped_column(String(20))
