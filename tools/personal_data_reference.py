"""Generate `docs/reference/personal-data.md` from the classification of all columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ctms.contacts.classification import Classified
from ctms.contacts.registry import PARTS
from ctms.contacts.service_tables import SERVICE_TABLES

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "personal-data.md"

INTRODUCTION = """\
# Personal data

<!-- Written by `tox -e reference` from ctms/contacts/registry.py and ctms/contacts/service_tables.py. -->

Every column of the database, with the category of its data, the purpose that it is stored for, and how long it is
kept. A column that is not classified fails the tests. Adapt your record of processing activities (GDPR, article 30)
from this page; the purposes are those of the service, yours may be narrower.

Not listed are the tables of Procrastinate, which name only lanes of backends and deletion handlers, and the tables of
plugins, in schemas of their own. Backups and the systems that backends mirror contacts to are described in
[Privacy](../explanation/privacy.md).

## Contacts

A contact is a row of `emails`, at most one row of each sub-document's table, and any number of rows of each list's.
[An access request](../how-to/answer-an-access-request.md) shows all of them.
"""

OTHER_TABLES = """
## Other tables

*Personal* is whether the data is about the person of a contact, or leads to one.
"""

HEADER = "\n| Column | Category | Purpose | Kept | Personal |\n| --- | --- | --- | --- | --- |\n"


def page() -> str:
    """Return the page."""
    parts = (
        _table(f"`{part.name}`: table `{part.table.name}`", part.classified, [c.name for c in part.table.columns])
        for part in PARTS.values()
    )
    others = (
        _table(f"`{name}`", classified, [column for columns in classified.values() for column in columns])
        for name, classified in SERVICE_TABLES.items()
    )
    return "".join((INTRODUCTION, *parts, OTHER_TABLES, *others))


def _table(heading: str, classified: Classified, order: Iterable[str]) -> str:
    """Return the section of a table: a row for each classification, its columns in this order."""
    position = {column: number for number, column in enumerate(order)}
    rows = []
    for one, columns in classified.items():
        names = ", ".join(f"`{column}`" for column in sorted(columns, key=position.__getitem__))
        personal = "yes" if one.personal else "no"
        rows.append(f"| {names} | {one.category} | {one.purpose} | {one.retention} | {personal} |\n")
    return f"\n### {heading}\n{HEADER}{''.join(rows)}"


if __name__ == "__main__":
    PAGE.write_text(page())
