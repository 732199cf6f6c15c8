"""What commands take as arguments, checked before anything is done: a wrong one is a usage error (exit status 2).

Each function is a type for click: it takes what was typed and returns the value, or raises `click.BadParameter`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import click
import email_validator

from ctms.clients.registry import CLIENT_ID

MAX_LENGTH = 255
LONGEST_OVERLAP = timedelta(days=365)

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
    """The id of an API client."""
    if not CLIENT_ID.fullmatch(value) or len(value) > MAX_LENGTH:
        raise click.BadParameter(
            f"a client id is `id_` and letters, digits, `-`, `_` or `.`, {MAX_LENGTH} characters at most"
        )
    return value


def new_name(value: str) -> str:
    """The name of a role or a permission that is to be made."""
    if not _NAME.fullmatch(value) or len(value) > MAX_LENGTH:
        raise click.BadParameter(f"a name is letters, digits, `-`, `_`, `.` or `:`, {MAX_LENGTH} characters at most")
    return value


def address(value: str) -> str:
    """An e-mail address; its syntax counts, nobody looks it up."""
    try:
        found = email_validator.validate_email(value, check_deliverability=False, globally_deliverable=False)
    except (email_validator.EmailNotValidError, UnicodeError) as error:
        raise click.BadParameter("it is not an e-mail address") from error
    if len(found.normalized) > MAX_LENGTH:
        raise click.BadParameter(f"an address has {MAX_LENGTH} characters at most")
    return found.normalized


def duration(value: str) -> timedelta:
    """A time: a number and its unit, from a second to a year."""
    found = _DURATION.fullmatch(value)
    if found:
        try:
            length = timedelta(**{_UNITS[found[2]]: int(found[1])})
        except OverflowError:
            length = timedelta.max
        if timedelta() < length <= LONGEST_OVERLAP:
            return length
    raise click.BadParameter("a duration is a number and s, m, h or d, as in 24h: from 1s to 365d")


def moment(value: str) -> datetime:
    """A time that has come: in ISO 8601, UTC where it does not say, or as long ago as a duration."""
    if _DURATION.fullmatch(value):
        return datetime.now(UTC) - duration(value)
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter("a time is ISO 8601, as in 2026-01-31T12:00, or a duration, as in 2h") from error
    if found > datetime.now(UTC):
        raise click.BadParameter("that time has not come yet")
    return found
