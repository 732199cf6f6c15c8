"""Waitlists as data: their rules are JSON Schemas in TOML or JSON files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import marshmallow as ma

from ctms.plugins import Waitlist, hookimpl, setting
from ctms_plugins.declared.files import read
from ctms_plugins.declared.rules import Rules


def _check_path(path: Path) -> None:
    if not path.exists():
        raise ma.ValidationError("must name a file or folder that is there")


@dataclass(frozen=True)
class Settings:
    """Where the files are."""

    path: Path | None = setting(  # noqa: RUF009  it is a field
        "PATH",
        "A TOML or JSON file, or a folder of them, that declares waitlists. Unset: none are declared.",
        default=None,
        check=_check_path,
    )


@hookimpl
def ctms_waitlists(settings: Settings) -> Iterator[Waitlist]:
    """Declare the waitlists of the files. Raises `RegistrationError` with file and line of what cannot be used."""
    for found in read(settings.path) if settings.path else ():
        with found.blamed():
            yield Waitlist(
                name=found.name,
                title=found.text("title"),
                description=found.text("description"),
                check=Rules(found.schema).check,
                json_schema=found.schema,
            )
