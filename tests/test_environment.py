"""Settings have the annotated type of their field; invalid values are reported but not shown."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NewType, Optional

import marshmallow as ma
import pytest

from ctms.environment import DeclarationError, declared, read_settings, setting
from ctms.errors import SettingsError
from ctms.readers import SCALARS, serialize

SECRET = "hunter2"


class Colour(enum.Enum):
    """An enum whose values are text."""

    RED = "red"
    GREEN = "dark green"


class Level(enum.IntEnum):
    """An enum whose values are numbers."""

    LOW = 1
    HIGH = 2


Seconds = NewType("Seconds", float)


def read(annotation: Any, **how: Any) -> Any:
    """Return the value of the variable `CTMS_PLUGIN_ACME_X` for a field of this type."""
    how.setdefault("default", None)
    cls = make_dataclass("Settings", [("x", annotation, setting("X", "One.", **how))])
    found: Any = read_settings(cls, "CTMS_PLUGIN_ACME_")
    return found.x


GOOD: list[tuple[Any, str, Any]] = [
    (int, "3", 3),
    ("int", " 3 ", 3),
    (int | None, "-3", -3),
    (Optional[int], "3", 3),  # noqa: UP045  as authors write it
    (float, "0.5", 0.5),
    (Seconds, "1", 1.0),
    (Decimal, "0.10", Decimal("0.10")),
    (bool, "no", False),
    (bool, "true", True),
    (str, "x", "x"),
    (str | None, "x", "x"),
    (Path, "/srv", Path("/srv")),
    (uuid.UUID, "12345678-1234-5678-1234-567812345678", uuid.UUID("12345678123456781234567812345678")),
    (dt.timedelta, "1h 30m", dt.timedelta(minutes=90)),
    (dt.timedelta, "90", dt.timedelta(seconds=90)),
    (dt.date, "2026-01-31", dt.date(2026, 1, 31)),
    (dt.time, "23:59", dt.time(23, 59)),
    (dt.datetime, "2026-01-31T23:59:00+00:00", dt.datetime(2026, 1, 31, 23, 59, tzinfo=dt.UTC)),
    (Colour, "dark green", Colour.GREEN),
    (Colour | None, "red", Colour.RED),
    (Level, "HIGH", Level.HIGH),
    (Literal["day", "hour"], "hour", "hour"),
    (Literal[1, 2], "2", 2),
    (list[int], "1, 2", [1, 2]),
    (list[str], "a, b,", ["a", "b"]),
    (list, "a,b", ["a", "b"]),
    (tuple[float, ...], "1,2.5", (1.0, 2.5)),
    (Sequence[Path], "/a,/b", (Path("/a"), Path("/b"))),
    (set[Colour], "red", {Colour.RED}),
    (frozenset[Literal["a", "b"]], "b,a", frozenset({"a", "b"})),
    (list[bool] | None, "no,yes", [False, True]),
]
BAD: list[tuple[Any, str]] = [
    (int, "must be a whole number"),
    (int | None, "must be a whole number"),
    (float, "must be a number"),
    (Decimal, "must be a number"),
    (bool, "must be true or false"),
    (uuid.UUID, "must be a UUID"),
    (dt.timedelta, "must be a duration, as in 90s, 15m or 1h 30m"),
    (dt.date, "must be a date, as in 2026-01-31"),
    (dt.time, "must be a time of day, as in 23:59"),
    (dt.datetime, "must be a date with a time, as in 2026-01-31T23:59:00+00:00"),
    (Colour, "must be one of red, dark green"),
    (Level, "must be one of LOW, HIGH"),
    (Literal["day", "hour"], "must be one of day, hour"),
    (list[int], "has entries, separated by commas, of which each must be a whole number"),
    (set[Colour], "has entries, separated by commas, of which each must be one of red, dark green"),
]


@pytest.mark.parametrize(("annotation", "text", "value"), GOOD)
def test_a_value_has_the_type_of_its_field(
    monkeypatch: pytest.MonkeyPatch, annotation: Any, text: str, value: Any
) -> None:
    monkeypatch.setenv("CTMS_PLUGIN_ACME_X", text)

    found = read(annotation)

    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(("annotation", "wants"), BAD)
@pytest.mark.parametrize("end", ["", "_FILE"])
def test_a_bad_value_is_named_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, annotation: Any, wants: str, end: str
) -> None:
    (tmp_path / "value").write_text(SECRET)
    monkeypatch.setenv(f"CTMS_PLUGIN_ACME_X{end}", str(tmp_path / "value") if end else SECRET)

    with pytest.raises(SettingsError) as error:
        read(annotation)

    assert error.value.message == f"CTMS_PLUGIN_ACME_X {wants}"


@pytest.mark.parametrize("value", ["nan", "inf", "1" * 400])
def test_a_number_is_finite(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CTMS_PLUGIN_ACME_X", value)

    with pytest.raises(SettingsError, match=r"^CTMS_PLUGIN_ACME_X must be a number$"):
        read(float)


@pytest.mark.parametrize(
    "annotation",
    [dict[str, str], object, int | str, tuple[int, str], list[dict[str, str]], list[dt.timedelta], Callable[[], None]],
)
def test_a_type_that_no_variable_can_hold(annotation: Any) -> None:
    with pytest.raises(DeclarationError, match=r"^the field x of its Settings cannot be read: no variable can hold a"):
        read(annotation)


def test_an_annotation_that_cannot_be_resolved() -> None:
    with pytest.raises(DeclarationError, match=r"^the field x of its Settings cannot be read: name 'Absent' is not"):
        read("Absent")


def test_a_reader_that_environs_does_not_have() -> None:
    with pytest.raises(DeclarationError, match="read='integer'"):
        read(int, read="integer")


def test_an_author_reads_the_text_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_PLUGIN_ACME_X", '{"a": 1}')

    assert read(dict[str, int], read="json") == {"a": 1}
    assert read(dict[str, int], convert=len) == 8
    assert read(dict[str, int], read="json", convert=len) == 1


def test_a_function_of_the_author_that_fails_is_named_without_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMS_PLUGIN_ACME_X", SECRET)

    with pytest.raises(SettingsError, match=r"^CTMS_PLUGIN_ACME_X cannot be read \(ValueError\)$"):
        read(int, convert=int)


def test_a_check_gets_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(value: int) -> None:
        if value > 3:
            raise ma.ValidationError({"deep": ["must be 3 at most"]})

    monkeypatch.setenv("CTMS_PLUGIN_ACME_X", "4")

    with pytest.raises(SettingsError, match=r"^CTMS_PLUGIN_ACME_X must be 3 at most$"):
        read(int, check=check)


@dataclass(frozen=True)
class Settings:
    """One setting may be left out, one may not."""

    limit: int = setting("LIMIT", "How many.", default=3)
    key: str = setting("KEY", "The key.", secret=True)
    names: list[str] = setting("NAMES", "Some.", default=["a"])  # noqa: RUF009  it is a field


@pytest.mark.parametrize("given", [{}, {"CTMS_PLUGIN_ACME_KEY": "  "}])
def test_a_setting_without_a_default_must_be_set(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"^CTMS_PLUGIN_ACME_KEY is missing$"):
        read_settings(Settings, "CTMS_PLUGIN_ACME_")

    monkeypatch.setenv("CTMS_PLUGIN_ACME_KYE", SECRET)
    with pytest.raises(SettingsError) as error:
        read_settings(Settings, "CTMS_PLUGIN_ACME_")
    assert error.value.message == (
        "CTMS_PLUGIN_ACME_KEY is missing (CTMS_PLUGIN_ACME_KYE is set: did you mean CTMS_PLUGIN_ACME_KEY?)"
    )

    monkeypatch.setenv("CTMS_PLUGIN_ACME_KEY", SECRET)
    found = read_settings(Settings, "CTMS_PLUGIN_ACME_")
    assert (found.limit, found.key, found.names) == (3, SECRET, ["a"])
    assert SECRET not in repr(found)
    assert found.names is not read_settings(Settings, "CTMS_PLUGIN_ACME_").names


def test_a_field_of_another_kind_is_named() -> None:
    with pytest.raises(DeclarationError, match=r"^the field x of its Settings is not created by setting"):
        declared(make_dataclass("Settings", [("x", int, 3)]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (dt.timedelta(minutes=90), "1:30:00"),
        (Colour.GREEN, "dark green"),
        (Level.HIGH, "HIGH"),
        ({Colour.RED, Colour.GREEN}, ["dark green", "red"]),
        ((Path("/a"), 1, True, None), ("/a", 1, True, None)),
        ([Decimal("0.10")], ["0.10"]),
    ],
)
def test_a_value_is_shown_as_json_can_hold_it(value: Any, shown: Any) -> None:
    assert serialize(value) == shown


def test_all_types_are_tested_here() -> None:
    assert set(SCALARS) <= {annotation for annotation, _, _ in GOOD if isinstance(annotation, type)}
