"""The report of an access request as one HTML page for people: nothing in it is loaded, and it prints on A4."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ctms.contacts.registry import PARTS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The page's Content-Security-Policy: should a value ever be taken for markup, it can load and run nothing."""

TEMPLATE = "report.html.jinja"

# Characters that a page cannot show, or that hide others: control characters, also those for the direction of text, and
# halves of a surrogate pair.
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MAX_LEVELS = 500
"""The levels of JSON that become rows of their own; Python cannot parse many more."""

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]')

_HEADLINE = {"event_id", "email_id", "recorded_at", "kind", "name", "action"}
"""The members of an event that are no details."""

_FIRST_SENTENCE = re.compile(r"\.(?:\s|$)")

_LABELS = {
    "email_id": "contact id",
    "fxa_primary_email": "address of the account",
    "merged_address": "e-mail address of a contact that was merged into this one",
    "primary_email": "e-mail address",
    "sfdc_id": "Salesforce id",
    "unsub_reason": "reason for unsubscribing",
}


class Row(NamedTuple):
    """A line of a table: the place of a value, and the value."""

    label: str
    value: str


class Section(NamedTuple):
    """A table with a title and a description; `rows` is empty if nothing is stored."""

    title: str
    description: str
    rows: list[Row]


def render(report: str, deleted: int = 0) -> str:
    """Return the page for a report, which is JSON text; `deleted` contacts were taken out of it."""
    found = _parse(report)
    contacts = [
        {
            "title": _text(contact["data"]["email"]["primary_email"]),
            "found_by": [label(name) for name in contact["found_by"]],
            "sections": [*_sections(contact["data"]), *_records(contact["records"])],
            "history": [_event(event) for event in contact["history"]],
            "copies": [{**copy, "rows": list(rows(copy["data"]))} for copy in contact["copies"]],
        }
        for contact in found["contacts"]
    ]
    return _template().render(
        policy=POLICY,
        created_at=_moment(found["created_at"]),
        contacts=contacts,
        deleted=deleted,
        suppressed=found["suppressed"],
        erasures=None
        if found["erasures"] is None
        else [{**one, "requested_at": _moment(one["requested_at"])} for one in found["erasures"]],
        purposes=_purposes(found["classification"]),
    )


def _parse(report: str) -> Any:
    """Parse a report: numbers as the text that is stored, and what is nested too deeply as its JSON text."""
    pieces: list[str] = []
    level = copied = start = 0
    for token in _STRING_OR_BRACKET.finditer(report):
        if token[0] in {"[", "{"}:
            level += 1
            if level == MAX_LEVELS:
                start = token.start()
        elif token[0] in {"]", "}"}:
            if level == MAX_LEVELS:
                pieces += [report[copied:start], json.dumps(report[start : token.end()])]
                copied = token.end()
            level -= 1
    pieces.append(report[copied:])
    return json.loads("".join(pieces), parse_float=str, parse_int=str)


def label(name: str) -> str:
    """Return a column or member in words."""
    return _LABELS.get(name, name.replace("_", " "))


def rows(data: Any) -> Iterator[Row]:
    """Yield the values in JSON data, each with its place; without recursion, because data may nest deeply."""
    pending: list[tuple[str, Any]] = [("", data)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, Mapping) and value:
            prefix = f"{place} › " if place else ""  # noqa: RUF001  meant as a separator
            pending += [(f"{prefix}{_text(label(str(name)))}", item) for name, item in reversed(list(value.items()))]
        elif isinstance(value, list) and value:
            pending += [(f"{place} {number}".strip(), item) for number, item in reversed(list(enumerate(value, 1)))]
        elif data is not None:
            yield Row(place, _text(value))


def _sections(data: Mapping[str, Any]) -> Iterator[Section]:
    """Yield a table for each sub-document, and for each entry of a list."""
    for name, part in PARTS.items():
        stored = data[name]
        about = f"{_FIRST_SENTENCE.split(part.schema.__doc__ or '')[0]}."
        if not part.many:
            yield Section(label(name), about, list(rows(stored)))
            continue
        for entry in stored:
            title = f"{label(name).removesuffix('s')}: {_text(entry['name'])}"
            yield Section(title, about, list(rows(entry)))
        if not stored:
            yield Section(label(name), about, [])


def _records(records: Mapping[str, Any]) -> Iterator[Section]:
    """Yield a table for each row in other tables."""
    for name, stored in records.items():
        for row in stored:
            yield Section(label(name), "Record of the service about the contact.", list(rows(row)))


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with its time, subject and action in words, and everything else that is stored about it."""
    details = {name: value for name, value in event.items() if name not in _HEADLINE and value is not None}
    return {
        "recorded_at": _moment(event["recorded_at"]),
        "subject": " ".join(_text(label(event[name])) for name in ("kind", "name") if event[name] is not None),
        "action": _text(event["action"]),
        "details": list(rows(details)),
    }


def _purposes(classification: Mapping[str, Mapping[str, Mapping[str, str]]]) -> list[dict[str, Any]]:
    """Return each category with its purpose and retention, and what belongs to it."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for part, columns in classification.items():
        for column, one in columns.items():
            key = (one["category"], one["purpose"], one["retention"])
            found.setdefault(key, []).append(f"{label(part)}: {label(column)}")
    return [
        {"category": category, "purpose": purpose, "retention": retention, "data": _grouped(data)}
        for (category, purpose, retention), data in found.items()
    ]


def _grouped(data: Iterable[str]) -> str:
    """Return `part: column` texts with each part once."""
    groups: dict[str, list[str]] = {}
    for one in data:
        part, _, column = one.partition(": ")
        groups.setdefault(part, []).append(column)
    return "; ".join(f"{part}: {', '.join(columns)}" for part, columns in groups.items())


def _text(value: Any) -> str:
    """Return a value as text that a page can show."""
    if value is None:
        return "–"  # noqa: RUF001  a dash
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value in ("", [], {}):
        return "(empty)"
    return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", str(value))


def _moment(text: str) -> str:
    """Return a time to the second."""
    return f"{text[:10]} {text[11:19]} UTC"


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(
        TEMPLATE
    )
