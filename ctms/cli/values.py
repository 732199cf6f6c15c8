"""Types of command-line arguments, validated before anything is done: an invalid one is a usage error (exit status 2).

Each function is a type for click: it takes the text and returns the value, or raises `click.BadParameter`.
"""

from __future__ import annotations

import json
import re
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import email_validator

from ctms.clients.rate_limits import PERIODS
from ctms.clients.registry import CLIENT_ID
from ctms.search.conditions import Condition, ConditionError, parse_condition

MAX_LENGTH = 255
MAX_OVERLAP = timedelta(days=365)
MAX_REQUESTS = 1_000_000
"""Largest number of requests in a rate limit."""

_NAME = re.compile(r"[-_.:a-zA-Z0-9]+")
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_RATE = re.compile(r"([0-9]{1,9})/([smh])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def stored_text(value: str) -> str:
    """Text that the database can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("it is not UTF-8") from error
    return value


def column_name(value: str) -> str:
    """Return the name of a column."""
    if not value.strip():  # an unset variable of a shell, for instance: it would select a column without a name
        raise click.BadParameter("it is blank: it must be the name of a column")
    return stored_text(value)


def client_id(value: str) -> str:
    """Parse the id of an API client."""
    if not CLIENT_ID.fullmatch(value) or len(value) > MAX_LENGTH:
        raise click.BadParameter(
            f"a client id is `id_` followed by letters, digits, `-`, `_` or `.`, at most {MAX_LENGTH} characters"
        )
    return value


def new_name(value: str) -> str:
    """Parse the name of a new role or permission."""
    if not _NAME.fullmatch(value) or len(value) > MAX_LENGTH:
        raise click.BadParameter(
            f"a name consists of letters, digits, `-`, `_`, `.` or `:`, at most {MAX_LENGTH} characters"
        )
    return value


def address(value: str) -> str:
    """Parse an e-mail address; only its syntax is checked."""
    try:
        found = email_validator.validate_email(value, check_deliverability=False, globally_deliverable=False)
    except (email_validator.EmailNotValidError, UnicodeError) as error:
        raise click.BadParameter("it is not an e-mail address") from error
    if len(found.normalized) > MAX_LENGTH:
        raise click.BadParameter(f"an address has at most {MAX_LENGTH} characters")
    return found.normalized


def duration(value: str) -> timedelta:
    """Parse a duration: a number and its unit, from a second to a year."""
    found = _DURATION.fullmatch(value)
    if found:
        try:
            length = timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            length = timedelta.max
        if timedelta() < length <= MAX_OVERLAP:
            return length
    raise click.BadParameter("a duration is a number and s, m, h or d, as in 24h: from 1s to 365d")


def rate(value: str) -> tuple[int, int]:
    """Parse a rate: a number of requests, and the seconds in which they may be sent."""
    found = _RATE.fullmatch(value)
    if found is None or not 1 <= int(found[1]) <= MAX_REQUESTS:
        raise click.BadParameter(
            f"a rate is a number of requests, / and s, m or h, as in 100/s: from 1/h to {MAX_REQUESTS}/s"
        )
    return int(found[1]), PERIODS[found[2]]


def moment(value: str) -> datetime:
    """Parse a past time: in ISO 8601, UTC by default, or as a duration before now."""
    if _DURATION.fullmatch(value):
        return datetime.now(UTC) - duration(value)
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("a time is ISO 8601, as in 2026-01-31T12:00, or a duration, as in 2h") from error
    if found > datetime.now(UTC):
        raise click.BadParameter("the time is in the future")
    return found


class GivenCondition(NamedTuple):
    """A condition of an operator: its data as JSON has them, and parsed."""

    data: dict[str, Any]
    parsed: Condition


def condition(value: str) -> GivenCondition:
    """Parse a condition on contacts: JSON text, which begins with {, or the path of a file in TOML or JSON."""
    text, place = value, ""
    if not value.lstrip().startswith("{"):
        place = value
        try:
            text = Path(value).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise click.BadParameter(f"{value} cannot be read: {error.strerror}") from error
        except ValueError as error:  # also of a path with U+0000
            raise click.BadParameter(f"{value} cannot be read: it is not UTF-8 text") from error
    is_json = text.lstrip().startswith("{")
    try:
        data = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "TOML"
        raise click.BadParameter(f"{place}: is not {kind}: {error}" if place else f"is not {kind}: {error}") from error
    try:
        parsed = parse_condition(data)
    except ConditionError as error:
        raise click.BadParameter(f"{place}: {error}" if place else str(error)) from error
    return GivenCondition(json.loads(json.dumps(data, default=lambda time: time.isoformat())), parsed)
