"""The examples of the page about access requests work."""

from __future__ import annotations

import re
from pathlib import Path

from ctms.subject_access.report import FORMAT, SCHEMA, VERSION
from tests.contacts.factories import minimal
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.forked_shell import activated
from tests.serving import Served

PAGE = DOCS / "how-to" / "answer-an-access-request.md"


def test_a_request_is_answered(served: Served, tmp_path: Path) -> None:
    address = "ada@example.com"
    with served.session() as session:
        session.delete(f"{served.url}/ctms/{address}", timeout=30)  # another page's test may have created it
        assert session.post(f"{served.url}/ctms", json=minimal(primary_email=address), timeout=30).status_code == 201

    pages.run(PAGE, activated(served.environment), tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_the_page_describes_the_format() -> None:
    text = PAGE.read_text()

    assert f"`{FORMAT}` and the version of the format, {VERSION}." in text
    assert str(SCHEMA.relative_to(ROOT)) in text
    statuses = next(line for line in text.splitlines() if line.startswith("| `contacts[].copies`"))
    assert {"found", "missing", "failed", "pending", "unsupported"} <= set(re.findall(r"`(\w+)`", statuses))
