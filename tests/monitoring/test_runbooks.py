"""What runbooks ask of the database can be asked, and names nobody."""

from __future__ import annotations

import pytest
from flask import Flask

from ctms.pool import reading
from tests.docs import pages
from tests.monitoring.definitions import RUNBOOKS

STATEMENTS = [
    pytest.param(block.text, id=f"{page.stem}-{number}")
    for page in sorted(RUNBOOKS.glob("*.md"))
    for number, block in enumerate(pages.blocks(page))
    if block.language == "sql"
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_statement_of_a_runbook_can_be_run(statement: str, app: Flask) -> None:
    with app.app_context(), reading() as connection:
        columns = {column.name for column in connection.execute(statement).description or ()}

    assert columns
    assert not columns & {"primary_email", "fxa_primary_email", "identities", "fingerprint", "query"}
