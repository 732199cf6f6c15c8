"""Dates in the formats of exports."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctms.bulk.dates import parse_date

MOMENT = datetime(2024, 5, 24, 10, 15, tzinfo=UTC)
DAY = datetime(2024, 5, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-24T10:15:00Z",
        "2024-05-24T12:15:00.000000+02:00",
        "2024-05-24 10:15",
        "2024-05-24 10:15 AM",
        "20240524T101500Z",
        "20240524101500",
        "202405241015",
        "1716545700",
        "1716545700.0",
        "1716545700000",
        "1716545700000000",
        "1716545700000000000",
        "2024-05-24 10:15:00." + "0" * 30,
        "Fri, 24 May 2024 10:15:00 UTC",
        "Fri, 24 May 2024 10:15:00 -0000",
        "Fri, 24 May 2024 06:15:00 EDT",
        "Fri, 24 May 2024 12:15:00 +0200 (CEST)",
        "Fri May 24 10:15:00 2024",
        "Fri May 24 03:15:00 PDT 2024",
        "24.05.2024 10:15",
        "24.5.2024, 10:15",
        "24-05-2024 10:15",
        "05/24/2024 10:15 AM",
        "5/24/24 10:15",
        "24/05/2024 10:15",
        "2024/05/24 10:15",
        "May 24, 2024, 10:15",
        "May 24, 2024 10:15\N{NARROW NO-BREAK SPACE}AM",
        "May 24, 2024, 12:15 (UTC+02:00)",
        "May 24, 2024, 06:15 (GMT-4)",
        "May 24, 2024, 10:15 (UTC)",
        "2024-05-24 10:15:00 +0000 UTC",
        " 24 May 2024 10:15 ",
    ],
)
def test_moments(text: str) -> None:
    assert parse_date(text) == MOMENT


@pytest.mark.parametrize("text", ["2024-05-24", "20240524", "24.05.2024", "05/24/2024", "May 24, 2024", "24-May-2024"])
def test_days(text: str) -> None:
    assert parse_date(text) == DAY


def test_slashes_are_american_and_dots_european() -> None:
    assert parse_date("05/06/2024") == datetime(2024, 5, 6, tzinfo=UTC)
    assert parse_date("05.06.2024") == datetime(2024, 6, 5, tzinfo=UTC)
    assert parse_date("05-06-2024") == datetime(2024, 6, 5, tzinfo=UTC)
    assert parse_date("2024-05-06 02:05 PM") == datetime(2024, 5, 6, 14, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "hour"), [("2024-05-24 12:00 AM", 0), ("2024-05-24 12:30 PM", 12), ("2024-05-24 11:59PM", 23)]
)
def test_twelve_hours(text: str, hour: int) -> None:
    moment = parse_date(text)
    assert moment is not None
    assert moment.hour == hour


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024",
        "May 2024",
        "24 May",
        "10:15",
        "Friday",
        "yesterday",
        "soon",
        "T",
        "2023-02-30",
        "0000-00-00 00:00:00",
        "2024-05-24 13:00 PM",
        "0001-01-01T00:00+05:00",
        "45436.42",
        "99999999999999999999",
        "1" * 20,
        "1" * 21,
        "1" * 100,
        "1" * 5000,
        "2024-05-24 " + "1" * 16,
        "id 20240524101500123",
        "24 Mai 2024",
    ],
)
def test_incomplete_dates(text: str) -> None:
    assert parse_date(text) is None


@given(st.one_of(st.text(max_size=40), st.text("0123456789 :/.-,+()APMUTCGMayFri\0", max_size=40)))
def test_any_text_is_a_date_or_none(text: str) -> None:
    moment = parse_date(text)
    assert moment is None or moment.tzinfo is UTC
