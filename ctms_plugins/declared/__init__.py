"""Waitlists and newsletters declared in TOML or JSON files, with JSON Schemas as the rules of waitlists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import marshmallow as ma

from ctms.plugins import Newsletter, Waitlist, hookimpl, setting
from ctms_plugins.declared.files import DeclarationKind, Declared, read
from ctms_plugins.declared.rules import Rules

WAITLIST = DeclarationKind("waitlist", ("title", "description", "schema"))
NEWSLETTER = DeclarationKind(
    "newsletter", ("title", "description", "languages", "active", "requires_double_opt_in", "vendor_ids")
)


def _check_path(path: Path) -> None:
    if not path.exists():
        raise ma.ValidationError("must name an existing file or folder")


@dataclass(frozen=True)
class Settings:
    """The settings of the plugin `declared`."""

    path: Path | None = setting(  # noqa: RUF009  it is a field
        "PATH",
        "TOML or JSON file, or folder of such files, that declares waitlists. If unset, none are declared.",
        default=None,
        check=_check_path,
    )
    newsletters_path: Path | None = setting(  # noqa: RUF009  it is a field
        "NEWSLETTERS_PATH",
        "TOML or JSON file, or folder of such files, that declares newsletters. If unset, none are declared.",
        default=None,
        check=_check_path,
    )


@hookimpl
def ctms_waitlists(settings: Settings) -> Iterator[Waitlist]:
    """Declare the waitlists of the files. Raises `RegistrationError` with file and line of an invalid one."""
    for found in read(settings.path, WAITLIST) if settings.path else ():
        schema = _schema(found)
        with found.blamed():
            yield Waitlist(
                name=found.name,
                title=found.text("title"),
                description=found.text("description"),
                check=Rules(schema).check,
                json_schema=schema,
            )


@hookimpl
def ctms_newsletters(settings: Settings) -> Iterator[Newsletter]:
    """Declare the newsletters of the files. Raises `RegistrationError` with file and line of an invalid one."""
    for found in read(settings.newsletters_path, NEWSLETTER) if settings.newsletters_path else ():
        with found.blamed():
            yield Newsletter(slug=found.name, **found.table)


def _schema(found: Declared) -> dict[str, Any]:
    """Return the JSON Schema of a waitlist's fields."""
    schema = found.table.get("schema")
    if not isinstance(schema, dict):
        found.refuse("needs a schema: the JSON Schema of its fields, a table")
    try:
        json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError):
        found.refuse("has a value in its schema that JSON has not, such as a date or nan")
    return schema
