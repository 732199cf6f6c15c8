"""A backend that writes contacts to a file, one line per change, for a data warehouse; disabled without a path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import marshmallow as ma

from ctms.plugins import Backend, HealthCheck, hookimpl, setting
from ctms_plugins.jsonl.journal import PERIODS, Journal, find_problem


def _check_positive(number: int) -> None:
    if number < 1:
        raise ma.ValidationError("must be 1 or more")


def _check_period(period: str) -> None:
    if period not in PERIODS:
        raise ma.ValidationError(f"must be one of {', '.join(PERIODS)}")


@dataclass(frozen=True)
class Settings:
    """The settings of the plugin `jsonl`."""

    path: Path | None = setting(  # noqa: RUF009  it is a field
        "PATH", "Path of the output file, in an existing folder. If unset, nothing is written.", default=None
    )
    max_bytes: int = setting(
        "MAX_BYTES",
        "Size at which the file is rotated, in bytes.",
        default=100_000_000,
        check=_check_positive,
    )
    every: str = setting(
        "EVERY",
        "Interval at which the file is also rotated (UTC): hour, day or never.",
        default="day",
        check=_check_period,
    )


@hookimpl
def ctms_backends(settings: Settings) -> Iterator[Backend]:
    """Declare the backend if a path is set."""
    if settings.path:
        yield Backend(
            name="jsonl",
            implementation=Journal(settings.path, settings.max_bytes, settings.every),
            max_batch=2_000,
            description=f"JSON Lines in {settings.path}",
        )


@hookimpl
def ctms_health_checks(settings: Settings) -> Iterator[HealthCheck]:
    """Declare the check of the file: if it cannot be written, everything else keeps working."""
    path = settings.path
    if path is not None:
        yield HealthCheck(name="jsonl", check=lambda: find_problem(path))
