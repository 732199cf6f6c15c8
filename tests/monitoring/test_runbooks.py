"""The statements in runbooks work, and show no personal data."""

from __future__ import annotations

from uuid import UUID

import pytest
from flask import Flask

from ctms.database.pool import reading
from tests.docs import pages
from tests.monitoring.definitions import RUNBOOKS

BLOCKS = [
    pytest.param(block.text, id=f"{page.stem}-{number}")
    for page in sorted(RUNBOOKS.glob("*.md"))
    for number, block in enumerate(pages.blocks(page))
    if block.language == "sql"
]
PERSONAL = {"primary_email", "fxa_primary_email", "identities", "fingerprint", "query"}


@pytest.mark.parametrize("block", BLOCKS)
def test_statements_of_a_runbook_can_be_run(block: str, app: Flask) -> None:
    statements = block.replace("'ID'", f"'{UUID(int=0)}'").strip().removesuffix(";").split(";")

    with app.app_context(), reading() as connection, connection.transaction(force_rollback=True):
        for statement in statements:
            columns = connection.execute(statement).description or ()
            assert not PERSONAL & {column.name for column in columns}
