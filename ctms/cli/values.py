"""Types of command-line arguments, validated before anything is done: an invalid one is a usage error (exit status 2).

Each function is a type for click: it takes the text and returns the value, or raises `click.BadParameter`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click
import email_validator

from ctms.clients.registry import CLIENT_ID

MAX_LENGTH = 255
MAX_OVERLAP = timedelta(days=365)

_NAME = re.compile(r"[-_.:a-zA-Z0-9]+")
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def stored_text(value: str) -> str:
    """Text that the database can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("it is not UTF-8") from error
    return value


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
