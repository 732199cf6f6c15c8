"""Waitlists declared in TOML or JSON files, with JSON Schemas as their rules."""

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


@hookimpl
def ctms_waitlists(settings: Settings) -> Iterator[Waitlist]:
    """Declare the waitlists of the files. Raises `RegistrationError` with file and line of an invalid one."""
    for found in read(settings.path) if settings.path else ():
        with found.blamed():
            yield Waitlist(
                name=found.name,
                title=found.text("title"),
                description=found.text("description"),
                check=Rules(found.schema).check,
                json_schema=found.schema,
            )
