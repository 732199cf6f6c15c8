"""What remains of an anonymised contact: it is erased, and added to numbers that name nobody.

The numbers have few and coarse dimensions, and text that a client may choose is only kept where it is a code or the
name of a list: so no value of a person survives, and no combination of values singles one out
(docs/decisions/020-one-condition-language.md).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from ctms.contacts.registry import LISTS
from ctms.database.pool import Connection
from ctms.retention.models import AnonymousCount
from ctms.search.conditions import is_subscribed_sql, parse_condition

CONTACTS = "contacts"
COLUMNS = tuple(column.name for column in AnonymousCount.__table__.columns)

_ENTRIES = " UNION ALL ".join(
    f"SELECT '{name}', CASE WHEN s.name ~ '^[-_.: A-Za-z0-9]{{1,63}}$' THEN s.name ELSE '' END,"
    f" {is_subscribed_sql(part)} FROM {part.table} s WHERE s.email_id = e.email_id"
    for name, part in LISTS.items()
)

_COUNT = f"""
    INSERT INTO {AnonymousCount.__tablename__} AS a
        (month, rule, created_year, country, language, kind, name, subscribed, contacts)
    SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date, %s,
        extract(year FROM e.create_timestamp AT TIME ZONE 'UTC')::int,
        CASE WHEN e.mailing_country ~ '^[A-Za-z]{{2}}$' THEN lower(e.mailing_country) ELSE '' END,
        coalesce(lower(substring(e.email_lang FROM '^([A-Za-z]{{2,3}})(?![A-Za-z])')), ''),
        s.kind, s.name, s.subscribed, count(DISTINCT e.email_id)
    FROM emails e, LATERAL (
        SELECT '{CONTACTS}' AS kind, '' AS name, {parse_condition({"has_subscription": True}).sql} AS subscribed
        UNION ALL {_ENTRIES}
    ) s
    WHERE e.email_id = ANY(%s)
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8
    ON CONFLICT (month, rule, created_year, country, language, kind, name, subscribed)
    DO UPDATE SET contacts = a.contacts + excluded.contacts"""

_READ = f"""
    SELECT {", ".join(COLUMNS)} FROM {AnonymousCount.__tablename__}
    ORDER BY month, rule, kind, name, created_year, country, language, subscribed"""


def add_to_counts(connection: Connection, rule: str, email_ids: Collection[UUID]) -> None:
    """Add the locked contacts, which this transaction will erase, to the numbers of a rule."""
    connection.execute(_COUNT, (rule, list(email_ids)))


def read_counts(connection: Connection) -> list[dict[str, Any]]:
    """Return all numbers of anonymised contacts."""
    return [dict(zip(COLUMNS, row, strict=True)) for row in connection.execute(_READ).fetchall()]
