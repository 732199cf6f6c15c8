"""The page about the API: its examples are run, and its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

from flask import Flask

from ctms.api import MAX_BODY_IN_BYTES
from ctms.api.parameters import MAX_LIMIT
from ctms.contacts.fields import MAX_DEPTH, MAX_ENTRIES
from tests.api.described import described
from tests.docs import pages
from tests.serving import Served

PAGE = pages.DOCS / "reference" / "api.md"
# Names in the page's prose.
IN_WORDS = {"Platform", "Documentation"}


def test_its_examples_work(served: Served, tmp_path: Path) -> None:
    says = {"http://127.0.0.1:8000": served.url, "secret_…": served.client_secret}
    with served.session() as session:
        session.delete(f"{served.url}/ctms/grace@example.com", timeout=30)  # another page's test may have created it

    pages.run(PAGE, served.environment, tmp_path, says)


def test_it_lists_every_call_with_its_permission(app: Flask) -> None:
    document = described(app)
    listed = re.findall(r"^\| `([A-Z]+) (\S+)` \| [^|]+ \| (?:`(\w+)` )?\|$", PAGE.read_text(), re.MULTILINE)
    documented = {
        (
            method.upper(),
            "/ctms/{primary_email}" if operation["operationId"] == "delete_contact" else path,
            operation.get("x-permission", ""),
        )
        for method, path, operation in document.operations.values()
        if not IN_WORDS & set(operation["tags"])
    }
    assert {(method, path, permission) for method, path, permission in listed} == documented
    for _, path, operation in document.operations.values():
        assert path == "/" or f"{path}`" in PAGE.read_text() or operation["operationId"] == "delete_contact"


def test_its_limits_are_those_of_the_code() -> None:
    limits = dict(re.findall(r"^\| (\w+)[^|]* \| ([\d,]+)[^|]* \| \d+ \|$", PAGE.read_text(), re.MULTILINE))

    assert {name: int(limit.replace(",", "")) for name, limit in limits.items()} == {
        "Body": MAX_BODY_IN_BYTES // 1024**2,
        "Entries": MAX_ENTRIES,
        "Levels": MAX_DEPTH,
        "Page": MAX_LIMIT,
    }
