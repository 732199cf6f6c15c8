"""Stored documents: rendered ones that reads return while they are valid, so that PostgreSQL renders only the others.

A stored document is valid if it has the format of this code and the contact's `update_timestamp`, and no row of
`outdated_documents` names the contact. Each writer of this service gives the contacts that it changes a new
`update_timestamp`. For other writers, triggers add those rows (revision 4f9d27b6c1e8). So whatever one statement
renders may be stored with the timestamp that the statement sees, unless another document was stored meanwhile: that is
what the `version` is for (docs/decisions/031-documents-are-stored.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from datetime import datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from ctms.contacts.documents import DOCUMENT, FROM_CONTACT
from ctms.database.engine import Model
from ctms.database.pool import Connection
from ctms.database.rendering import compact
from ctms.settings import app_settings

FORMAT = blake2b(DOCUMENT.encode(), digest_size=6).hexdigest()
"""The name of what this code renders: code with another document does not read those of this one."""


class ContactDocument(Model):
    """The stored document of a contact; `version` counts how often one was stored."""

    __tablename__ = "contact_documents"

    email_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("emails.email_id", onupdate="CASCADE", ondelete="CASCADE"), primary_key=True
    )
    update_timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    format: Mapped[str] = mapped_column(String(20))
    version: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[str] = mapped_column(Text)


Table(
    "outdated_documents",
    Model.metadata,
    Column("email_id", Uuid, nullable=False),
    Index("idx_outdated_documents_contact", "email_id"),
)


class DocumentProgress(Model):
    """The contact up to which documents are stored, in the order of changes."""

    __tablename__ = "document_progress"
    __table_args__ = (CheckConstraint("one_row"),)

    one_row: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    format: Mapped[str] = mapped_column(String(20))
    moment: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    email_id: Mapped[uuid.UUID]


def stored(alias: str) -> str:
    """Return an SQL expression: the valid stored document of the row `alias` of `emails`, or NULL."""
    return (
        "(SELECT s.document FROM contact_documents s"
        f" WHERE s.email_id = {alias}.email_id AND s.update_timestamp = {alias}.update_timestamp"
        f" AND s.format = '{FORMAT}'"
        " AND NOT EXISTS (SELECT FROM outdated_documents o WHERE o.email_id = s.email_id))"
    )


# The alias of the row is none of those inside.
_RENDER_CONTACT = f"(SELECT {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE e.email_id = contact.email_id)"
_READ_CONTACT = f"coalesce({stored('contact')}, {_RENDER_CONTACT})"


def contact_document() -> str:
    """Return an SQL expression: the document of the row `contact` of `emails`, stored or rendered."""
    return _READ_CONTACT if is_enabled() else _RENDER_CONTACT


def is_enabled() -> bool:
    """Return whether documents are stored and read: `CTMS_STORED_DOCUMENTS`."""
    return app_settings().stored_documents


# Only a contact that is not being deleted gets a document: the foreign key would wait for the deletion, and then fail.
# The lock keeps the contact until its document exists. It is separate from the query that renders: a query that locks
# mixes the newest rows with those of its snapshot. A writer takes the lock of all writers, which it has already if it
# has changed the contact. With a weaker lock, one that has not could store the document of a contact that another
# writer has locked. The other would wait for that row, and the first, when it tries again to write, for the contact.
_LOCKED = "SELECT email_id FROM emails WHERE email_id {} SKIP LOCKED"
_WRITERS_LOCK = "= %s FOR NO KEY UPDATE"
_FILLERS_LOCK = "= ANY(%s) ORDER BY email_id FOR KEY SHARE"  # writers of contacts do not wait for it
# Nothing is stored where a document was stored that the statement does not see. It may be a newer one.
_STORE = f"""
    INSERT INTO contact_documents AS s (email_id, update_timestamp, format, version, document)
    SELECT email_id, update_timestamp, '{FORMAT}', version, document FROM rendered JOIN locked USING (email_id)
    ON CONFLICT (email_id) DO UPDATE SET update_timestamp = excluded.update_timestamp, format = excluded.format,
        version = excluded.version, document = excluded.document
    WHERE s.version = excluded.version - 1"""
_RENDERED = f"""
    SELECT e.email_id, e.update_timestamp, {DOCUMENT} AS document, coalesce((
        SELECT s.version FROM contact_documents s WHERE s.email_id = e.email_id), 0) + 1 AS version
    FROM emails e {FROM_CONTACT}"""

STORE_WRITTEN = compact(f"""
    WITH locked AS MATERIALIZED ({_LOCKED.format(_WRITERS_LOCK)}),
    rendered AS MATERIALIZED ({_RENDERED} WHERE e.email_id = %s),
    stored AS ({_STORE})
    SELECT document FROM rendered""")
"""The statement of `store_written`."""

RENDER = f"SELECT {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE e.email_id = %s"
"""The statement that renders the document of one contact."""

# Rows of `outdated_documents` are removed only if the document that makes them needless was stored, and only those that
# the statement sees: its document has the changes of these.
_FILL = f"""
    WITH locked AS MATERIALIZED ({_LOCKED.format(_FILLERS_LOCK)}),
    rendered AS MATERIALIZED (
        {_RENDERED} JOIN locked ON locked.email_id = e.email_id
        WHERE {stored("e")} IS NULL ORDER BY e.email_id),
    stored AS ({_STORE} RETURNING s.email_id),
    removed AS (DELETE FROM outdated_documents o USING stored WHERE o.email_id = stored.email_id)
    SELECT count(*) FROM stored"""

_REMOVE_ORPHANS = """
    DELETE FROM outdated_documents o
    WHERE o.email_id = ANY(%s) AND NOT EXISTS (SELECT FROM emails e WHERE e.email_id = o.email_id)"""


def store_written(connection: Connection, email_id: UUID) -> str | None:
    """Return the document of a contact that this transaction has written, None if it does not exist, and store it.

    It is not stored if the transaction has not written the contact after all, and another one has locked it.
    """
    if is_enabled():
        row = connection.execute(STORE_WRITTEN, (email_id, email_id)).fetchone()
    else:
        row = connection.execute(RENDER, (email_id,)).fetchone()
    return row[0] if row else None


def fill(connection: Connection, email_ids: Collection[UUID]) -> int:
    """Store the documents of those of the contacts that have no valid one, and return their number.

    Contacts that are being deleted are skipped.
    """
    row = connection.execute(_FILL, (list(email_ids),)).fetchone()
    assert row is not None  # noqa: S101  an aggregate has one row
    number: int = row[0]
    return number


def remove_orphans(connection: Connection, email_ids: Collection[UUID]) -> None:
    """Remove what is noted of those of the contacts that do not exist any more."""
    connection.execute(_REMOVE_ORPHANS, (list(email_ids),))


_COMPARE = f"""
    SELECT count(*), coalesce(array_agg(v.email_id) FILTER (WHERE v.stored <> v.rendered), '{{}}')
    FROM (
        SELECT contact.email_id, {stored("contact")} AS stored, {_RENDER_CONTACT} AS rendered
        FROM emails contact WHERE contact.email_id = ANY(%s) OFFSET 0) v
    WHERE v.stored IS NOT NULL"""


def compare(connection: Connection, email_ids: Collection[UUID]) -> tuple[int, list[UUID]]:
    """Compare the valid stored documents of contacts with rendered ones; return their number, and which ones differ."""
    row: Any = connection.execute(_COMPARE, (list(email_ids),)).fetchone()
    return row[0], row[1]
