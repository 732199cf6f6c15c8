"""Parsing of dates in exports: ISO 8601, Unix timestamps, RFC 2822, and formats of spreadsheets and web pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

from dateutil import parser

MAX_LENGTH = 100
"""Characters of a date; longer text is not a date."""

_EPOCH = re.compile(r"(?!(?:19|20)\d{10}\Z)(?:\d{9,13}(?:\.\d+)?|\d{15,19})", re.ASCII)
"""Seconds to nanoseconds. Other numbers are compact dates (`20240524`, `202405241015`, `20240524101500`), or not dates.

Twelve digits in milliseconds would be before the year 2002.
"""
_TOO_MANY_DIGITS = re.compile(r"(?<![.,\d])\d{15,}")
"""Too many digits for a part of a date other than a fraction; the parsers would accept the first of them."""
_MAX_SECONDS = 10**11
"""The year 5138: a larger number is in milliseconds, microseconds or nanoseconds."""

_RFC_2822 = re.compile(r"[A-Z][a-z]{2}, +\d{1,2} [A-Z][a-z]{2} \d{4} .*", re.ASCII)
_NAMED_OFFSET = re.compile(r"(?:UTC|GMT) ?(?=[+-]\d)", re.ASCII)
"""dateutil reads `UTC+2` as POSIX does, with the opposite sign; in exports the clock is two hours ahead."""
_NAME_AFTER_OFFSET = re.compile(r"([+-]\d\d:?\d\d) [A-Z]{3,4}$", re.ASCII)
_BRACKETS = re.compile(r"[()]")
_COMMENT = re.compile(r"([+-]\d\d:?\d\d) *\([^()]*\)$", re.ASCII)

# The zones of RFC 2822; any other name of a zone is ambiguous.
_HOURS = {"EDT": -4, "EST": -5, "CDT": -5, "CST": -6, "MDT": -6, "MST": -7, "PDT": -7, "PST": -8}

_DAY_FIRST = re.compile(r"\d{1,2}[.-]", re.ASCII)


class _FullDate(datetime):
    """A default for missing parts of a text, which allows only parts of the time to be missing."""

    def replace(self, **given: Any) -> datetime:  # type: ignore[override]  # the parts that dateutil has found, by name
        """Return the moment. Raises `ValueError` when a part of the date is missing."""
        if not {"year", "month", "day"} <= given.keys():
            raise ValueError("no full date")
        return datetime(1, 1, 1).replace(**given)  # noqa: DTZ001  the zone comes later


_DEFAULT = _FullDate(1, 1, 1)


@lru_cache(4096)  # there are fewer minutes than lines
def parse_date(text: str) -> datetime | None:
    """Return the moment in UTC, which is also the default zone; None if the text is not a full date.

    With slashes the month comes first (`05/24/2024`), with dots or hyphens the day (`24.05.2024`). A first number that
    cannot be a month, or a day, is taken as the other.
    """
    text = text.strip()
    if not 6 <= len(text) <= MAX_LENGTH or (_TOO_MANY_DIGITS.search(text) and not _EPOCH.fullmatch(text)):
        return None
    for read in _READERS:
        try:
            moment = read(text)
            if moment is not None:
                return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError, TypeError, AttributeError, IndexError):  # dateutil raises all of these
            continue
    return None


def _read_epoch(text: str) -> datetime | None:
    if not _EPOCH.fullmatch(text):
        return None
    seconds = float(text)
    while seconds >= _MAX_SECONDS:
        seconds /= 1000
    return datetime.fromtimestamp(seconds, UTC)


def _read_rfc_2822(text: str) -> datetime | None:
    return parsedate_to_datetime(text) if _RFC_2822.fullmatch(text) else None


def _read_other(text: str) -> datetime | None:
    text = _COMMENT.sub(r"\1", text)
    text = _NAME_AFTER_OFFSET.sub(r"\1", _NAMED_OFFSET.sub("", _BRACKETS.sub(" ", text)))
    return parser.parse(text, default=_DEFAULT, dayfirst=_DAY_FIRST.match(text) is not None, tzinfos=_zone)


def _zone(name: str | None, offset: int | None) -> tzinfo | None:
    if offset is not None:
        return timezone(timedelta(seconds=offset))
    return timezone(timedelta(hours=_HOURS[name])) if name in _HOURS else None


_READERS: tuple[Callable[[str], datetime | None], ...] = (
    _read_epoch,
    datetime.fromisoformat,
    _read_rfc_2822,
    _read_other,
)
