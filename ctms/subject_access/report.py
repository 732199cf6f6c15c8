"""The report of an access request as JSON: the format that `report.schema.json` describes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from ctms.contacts.registry import PARTS
from ctms.subject_access.copies import PENDING, make_copy

FORMAT = "ctms-subject-access"
VERSION = 1
"""The version of the format; it changes when a member is renamed, removed, or means something else."""

SCHEMA = Path(__file__).with_name("report.schema.json")


def compose(result: str, contacts: Iterable[tuple[str, Mapping[str, str | None]]]) -> str:
    """Return the report as JSON text: the `result`, and each contact with its copies by backend."""
    documents = ",".join(f"{content[:-1]},{_copies(copies)}}}" for content, copies in contacts)
    head = f'{{"format":{json.dumps(FORMAT)},"version":{VERSION}'
    return f'{head},{result[1:-1]},"contacts":[{documents}],"classification":{_classification()}}}'


def with_report(record: str, report: str | None) -> str:
    """Return the record of a request with its report, JSON text."""
    return f'{record[:-1]},"report":{report or "null"}}}'


def _copies(copies: Mapping[str, str | None]) -> str:
    found: Sequence[str] = [copy or make_copy(backend, PENDING).text for backend, copy in copies.items()]
    return f'"copies":[{",".join(found)}]'


@cache
def _classification() -> str:
    """Return the category, purpose and retention of each column of a contact."""
    return json.dumps(
        {
            name: {
                column: {"category": one.category, "purpose": one.purpose, "retention": one.retention}
                for column, one in part.classifications.items()
            }
            for name, part in PARTS.items()
        }
    )
