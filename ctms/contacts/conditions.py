"""Typed conditions on contacts, parsed from TOML or JSON into SQL with parameters.

A condition is a table of tests, all of which must be true; `and`, `or` and `not` combine conditions. The names of tests
and the SQL come from this module and from the registry of a contact's parts. Values of the input are only parameters.

The SQL is never unknown where it decides: a NULL column reads as its default, as in documents, and a test of a missing
value is false, so its `not` is true.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

from ctms.contacts.documents import null_default, readable_json
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, FXA, LISTS, MOFO, SUB_DOCUMENTS

MAX_DEPTH = 10
"""Levels of conditions inside each other."""
MAX_VALUES = 1_000
"""Values of a list."""
MAX_YEARS = 200

SUBSCRIBED, UNSUBSCRIBED, ANY = "subscribed", "unsubscribed", "any"

_COMBINE = {"and": " AND ", "or": " OR "}
_AGE = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[hdy])")
_HOURS = {"h": 1, "d": 24, "y": 24 * 366}


class ConditionError(ValueError):
    """A condition is invalid: the message has its place in the input and the reason."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}" if place else problem)


class Age(NamedTuple):
    """An age in calendar years and hours."""

    years: int
    hours: int

    def before(self, now: datetime) -> datetime:
        """Return the time that was this long before `now`. A year before 29 February is 28 February."""
        try:
            then = now.replace(year=now.year - self.years)
        except ValueError:
            then = now.replace(year=now.year - self.years, day=28)
        return then - timedelta(hours=self.hours)


@dataclass(frozen=True)
class Condition:
    """A condition on the contact in row `e` of `emails`: SQL with a `%s` for each of its values."""

    sql: str
    values: tuple[Any, ...] = ()

    def bind(self, now: datetime) -> list[Any]:
        """Return the parameters of the SQL; ages count back from `now`."""
        return [value.before(now) if isinstance(value, Age) else value for value in self.values]


def parse_condition(data: Any, place: str = "") -> Condition:
    """Parse a condition at a place in the input.

    Raises `ConditionError`, with the known names for an unknown one.
    """
    return _parse(data, place, MAX_DEPTH)


def combine(operator: str, conditions: Sequence[Condition]) -> Condition:
    """Combine one or more conditions with `and` or `or`."""
    sql = _COMBINE[operator].join(f"({one.sql})" for one in conditions)
    return Condition(sql, tuple(value for one in conditions for value in one.values))


def _parse(data: Any, place: str, depth: int) -> Condition:
    if not isinstance(data, Mapping):
        raise ConditionError(place, "must be a table of tests")
    if not data:
        raise ConditionError(place, "is empty, but an empty condition would match every contact: name a test")
    if not depth:
        raise ConditionError(place, f"has more than {MAX_DEPTH} levels")
    return combine("and", [_parse_test(name, value, _inner(place, name), depth) for name, value in data.items()])


def _parse_test(name: str, value: Any, place: str, depth: int) -> Condition:
    if name in _COMBINE:
        if not isinstance(value, list) or not value:
            raise ConditionError(place, "must be a list of one or more conditions")
        return combine(
            name, [_parse(one, f"{place}[{number}]", depth - 1) for number, one in enumerate(value, start=1)]
        )
    if name == "not":
        inner = _parse(value, place, depth - 1)
        return Condition(f"({inner.sql}) IS NOT TRUE", inner.values)
    if name not in TESTS:
        raise ConditionError(place, f"there is no such test; the tests are {', '.join([*TESTS, *_COMBINE, 'not'])}")
    return TESTS[name](value, place)


def _boolean(sql: str) -> Callable[[Any, str], Condition]:
    """Return the parser of a test whose SQL is true or false."""

    def parse(value: Any, place: str) -> Condition:
        if not isinstance(value, bool):
            raise ConditionError(place, "must be true or false")
        return Condition(sql if value else f"NOT {sql}")

    return parse


def _flag(part: Part, column: str) -> Callable[[Any, str], Condition]:
    """Return the parser of a test of a boolean column."""
    stored = f"{part.alias}.{column}"
    if not part.required:
        stored = f"(SELECT {stored} FROM {part.table} {part.alias} WHERE {part.alias}.email_id = e.email_id)"
    return _boolean(f"coalesce({stored}, {null_default(part.fields[column])})")


def _text(column: str) -> Callable[[Any, str], Condition]:
    """Return the parser of a test of a text column, in any case."""

    def parse(value: Any, place: str) -> Condition:
        return Condition(f"lower({column}) = ANY (ARRAY(SELECT lower(unnest(%s::text[]))))", (_texts(value, place),))

    return parse


def _time(column: str) -> Callable[[Any, str], Condition]:
    """Return the parser of a test of a time."""
    bounds: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
        "before": ("<", _moment),
        "since": (">=", _moment),
        "older_than": ("<", _age),
        "newer_than": (">=", _age),
    }

    def parse(value: Any, place: str) -> Condition:
        members = _members(value, place, bounds)
        return combine(
            "and",
            [
                Condition(f"{column} {bounds[name][0]} %s", (bounds[name][1](bound, _inner(place, name)),))
                for name, bound in members.items()
            ],
        )

    return parse


def _entry(part: Part) -> Callable[[Any, str], Condition]:
    """Return the parser of a test for an entry of a list, by its name or by a table of members."""
    state = is_subscribed_sql(part)
    states = {SUBSCRIBED: state, UNSUBSCRIBED: f"NOT {state}", ANY: "true"}
    members: dict[str, Callable[[Any, str], Iterable[Condition]]] = {
        "name": lambda value, place: [Condition("s.name = ANY(%s)", (_texts(value, place),))],
        "state": lambda value, place: [Condition(states[_choice(value, place, states)])],
        "source": lambda value, place: [Condition("starts_with(s.source, %s)", (_one_text(value, place),))],
    }
    if "fields" in part.columns:
        members["fields"] = _fields

    def parse(value: Any, place: str) -> Condition:
        given = value if isinstance(value, Mapping) else {"name": value}
        given = {"state": SUBSCRIBED, **_members(given, place, members)}
        tests = [one for name in given for one in members[name](given[name], _inner(place, name))]
        inner = combine("and", tests)
        return Condition(
            f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id AND {inner.sql})", inner.values
        )

    return parse


def _fields(value: Any, place: str) -> Iterable[Condition]:
    """Parse a test of the fields of a waitlist: a value, or one of several, for each."""
    if not isinstance(value, Mapping) or not value:
        raise ConditionError(place, "must be a table with the value of one or more fields")
    stored = readable_json("s.fields")
    for name, wanted in value.items():
        here = _inner(place, name)
        values = [_scalar(one, here) for one in _list(wanted, here)]
        key = _one_text(name, here)
        sql = f"json_typeof({stored} -> %s) || ' ' || ({stored} ->> %s) = ANY(%s)"
        yield Condition(sql, (key, key, values))


def _scalar(value: Any, place: str) -> str:
    """Return the JSON type of a field's value and its text."""
    match value:
        case bool():
            return f"boolean {str(value).lower()}"
        case int():
            return f"number {value}"
        case str():
            return f"string {_one_text(value, place)}"
    raise ConditionError(place, "must be text, a whole number, true or false, or a list of these")


def is_subscribed_sql(part: Part) -> str:
    """Return the SQL condition that the entry in row `s` of a list is subscribed."""
    return f"coalesce(s.subscribed, {null_default(part.fields['subscribed'])})"


def _any_subscription() -> str:
    return " OR ".join(
        f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id AND {is_subscribed_sql(part)})"
        for part in LISTS.values()
    )


def _inner(place: str, name: Any) -> str:
    return f"{place}.{name}" if place else str(name)


def _members(value: Any, place: str, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a table that has one or more of the known members, and no other."""
    if not isinstance(value, Mapping) or not value:
        raise ConditionError(place, f"must be a table with {', '.join(known)}")
    unknown = [str(name) for name in value if name not in known]
    if unknown:
        raise ConditionError(place, f"has {', '.join(unknown)}, but may have {', '.join(known)}")
    return value


def _choice(value: Any, place: str, known: Iterable[str]) -> str:
    if value not in list(known):
        raise ConditionError(place, f"must be one of {', '.join(known)}")
    return str(value)


def _list(value: Any, place: str) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_VALUES:
        raise ConditionError(place, f"must be a value or a list of 1 to {MAX_VALUES:,}")
    return values


def _texts(value: Any, place: str) -> list[str]:
    return [_one_text(one, place) for one in _list(value, place)]


def _one_text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConditionError(place, "must be text that is not empty")
    # PostgreSQL cannot store these; nothing would match, and the statement would fail.
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ConditionError(place, "has a character that no contact can have")
    return value


def _moment(value: Any, place: str) -> datetime:
    """Parse a date or time, UTC unless it says otherwise."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ConditionError(place, "must be a date or time, as in 2026-01-31 or 2026-01-31T12:00:00Z") from None
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    raise ConditionError(place, "must be a date or time, as in 2026-01-31 or 2026-01-31T12:00:00Z")


def _age(value: Any, place: str) -> Age:
    found = _AGE.fullmatch(value) if isinstance(value, str) else None
    if found:
        number, unit = int(found["number"]), found["unit"]
        if 0 < number * _HOURS[unit] <= MAX_YEARS * _HOURS["y"]:
            return Age(number, 0) if unit == "y" else Age(0, number * _HOURS[unit])
    raise ConditionError(place, f"must be a number and h, d or y, as in 90d or 2y: at most {MAX_YEARS} years")


TESTS: Mapping[str, Callable[[Any, str], Condition]] = {
    "create_timestamp": _time("e.create_timestamp"),
    "update_timestamp": _time("e.update_timestamp"),
    "double_opt_in": _flag(EMAIL, "double_opt_in"),
    "has_opted_out_of_email": _flag(EMAIL, "has_opted_out_of_email"),
    "mailing_country": _text("e.mailing_country"),
    "email_lang": _text("e.email_lang"),
    "account_deleted": _flag(FXA, "account_deleted"),
    "mofo_relevant": _flag(MOFO, "mofo_relevant"),
    **{
        f"has_{name}": _boolean(f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id)")
        for name, part in SUB_DOCUMENTS.items()
    },
    "has_subscription": _boolean(f"({_any_subscription()})"),
    **{name: _entry(part) for name, part in LISTS.items()},
}
"""The parser of each test, by name."""
