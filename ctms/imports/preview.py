"""The preview of an import: the contacts as they would become."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ctms.contacts.queries import documents_by_id
from ctms.database import pool
from ctms.imports.mapping import Row, RowError
from ctms.imports.rows import ImportRules, bad_row, import_rows

ROWS = 10
"""Number of rows of a preview."""


def preview(found: Iterable[tuple[int, Row | RowError]], rules: ImportRules) -> list[dict[str, Any]]:
    """Return the outcomes of the rows, with the documents of their contacts; nothing is stored."""
    shown = []
    with pool.acquire() as connection, connection.transaction(force_rollback=True):
        for number, row in found:
            outcomes = (
                [bad_row(number, row)] if isinstance(row, RowError) else import_rows(connection, [(number, row)], rules)
            )
            for outcome in outcomes:
                documents = documents_by_id(connection, {outcome.email_id} if outcome.email_id else set())
                shown.append(
                    {
                        **{name: value for name, value in outcome._asdict().items() if value is not None},
                        "contact": next(map(json.loads, documents.values()), None),
                    }
                )
    return shown
