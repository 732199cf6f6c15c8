"""Typed conditions on contacts, parsed from TOML or JSON into SQL with parameters.

A condition is a table of tests, all of which must be true; `and`, `or` and `not` combine conditions. The names of tests
and the SQL come from this module and from the registry of a contact's parts. Values of the input are only parameters.

The SQL is never unknown where it decides: a NULL column reads as its default, as in documents, and a test of a missing
value is false, so its `not` is true.

A condition also knows the index scans that find its contacts (`anchors`), for those who must not read all contacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

from ctms.contacts.documents import null_default, readable_json
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, FXA, LISTS, MOFO, SUB_DOCUMENTS
from ctms.search.anchors import Age, Anchors, AnyOf, IndexScan, bind

MAX_DEPTH = 10
"""Levels of conditions inside each other."""
MAX_VALUES = 1_000
"""Values of a list."""
MAX_CHARACTERS = 100_000
"""Length of the SQL, so that the planner has an end: some hundred tests."""
TOO_LONG = "has too many tests and values"
MAX_YEARS = 200

MAX_SCANS = 50
"""Values of a list that an index is asked for."""

FLAG, TEXTS, TIME = "flag", "texts", "time"
"""The kinds of tests, besides the lists of the registry."""
SUBSCRIBED, UNSUBSCRIBED, ANY = "subscribed", "unsubscribed", "any"

_COMBINE = {"and": " AND ", "or": " OR "}
_OPPOSITE = {"and": "or", "or": "and"}
_AGE = re.compile(r"(?P<number>[0-9]{1,7})(?P<unit>[hdy])")
_HOURS = {"h": 1, "d": 24, "y": 24 * 366}


Place = tuple[str | int, ...]
"""The place of a value: names of members, and positions in lists."""


class ConditionError(ValueError):
    """A condition is invalid: the message has its place in the input and the reason."""

    def __init__(self, place: str | Place, problem: str) -> None:
        self.place: Place = (place,) if isinstance(place, str) else place
        self.problem = problem
        shown = _show(self.place)
        super().__init__(f"{shown}: {problem}" if shown else problem)


def _show(place: Place) -> str:
    """Return a place as text, in which the first position of a list is 1."""
    return "".join(f"[{one + 1}]" if isinstance(one, int) else f".{one}" for one in place).removeprefix(".")


@dataclass(frozen=True)
class Condition:
    """A condition on the contact in row `e` of `emails`: SQL with a `%s` for each of its values.

    `negation` is the SQL of its opposite, with the same values; the planner can use indexes and joins for either. Each
    of the `anchors` finds a superset of the contacts that match. Without one, `weakest` is the place where a further
    test would add one.
    """

    sql: str
    values: tuple[Any, ...] = ()
    negation: str = ""
    anchors: Anchors = ()
    weakest: Place = ()

    def __post_init__(self) -> None:
        if not self.negation:
            object.__setattr__(self, "negation", f"({self.sql}) IS NOT TRUE")

    def bind(self, now: datetime) -> list[Any]:
        """Return the parameters of the SQL; ages count back from `now`."""
        return bind(self.values, now)

    def bind_by_name(self, prefix: str, now: datetime) -> tuple[str, dict[str, Any]]:
        """Return the SQL with named parameters, whose names begin with the prefix, and the parameters."""
        names = [f"{prefix}{number}" for number in range(len(self.values))]
        pieces = self.sql.split("%s")
        sql = "".join(f"{piece}%({name})s" for piece, name in zip(pieces, names, strict=False)) + pieces[-1]
        return sql, dict(zip(names, self.bind(now), strict=True))


def parse_condition(data: Any, place: str = "") -> Condition:
    """Parse a condition at a place in the input.

    Raises `ConditionError`, with the known names for an unknown one.
    """
    at: Place = (place,) if place else ()
    found = _parse(data, at, MAX_DEPTH)
    if len(found.sql) > MAX_CHARACTERS:
        raise ConditionError(at, TOO_LONG)
    return found


def combine(operator: str, conditions: Sequence[Condition], place: Place = ()) -> Condition:
    """Combine one or more conditions with `and` or `or`, at a place in the input."""
    sql = _COMBINE[operator].join(f"({one.sql})" for one in conditions)
    negation = _COMBINE[_OPPOSITE[operator]].join(f"({one.negation})" for one in conditions)
    values = tuple(value for one in conditions for value in one.values)
    weak = [one.weakest for one in conditions if not one.anchors]
    anchors: Anchors = ()
    if operator == "and":
        anchors = tuple(anchor for one in conditions for anchor in one.anchors)
    elif not weak:
        anchors = (AnyOf(tuple(one.anchors for one in conditions)),)
    blames_one = weak and (operator == "or" or len(conditions) == 1)
    return Condition(sql, values, negation, anchors, weak[0] if blames_one else place)


def _parse(data: Any, place: Place, depth: int) -> Condition:
    if not isinstance(data, Mapping):
        raise ConditionError(place, "must be a condition: tests by their names")
    if not data:
        raise ConditionError(place, "is empty, but an empty condition would match every contact: name a test")
    if not depth:
        raise ConditionError(place, f"has more than {MAX_DEPTH} levels")
    return combine("and", [_parse_test(name, value, (*place, name), depth) for name, value in data.items()], place)


def _parse_test(name: str, value: Any, place: Place, depth: int) -> Condition:
    if name in _COMBINE:
        if not isinstance(value, list) or not value:
            raise ConditionError(place, "must be a list of one or more conditions")
        inner: list[Condition] = []
        left = MAX_CHARACTERS
        for number, one in enumerate(value):
            inner.append(_parse(one, (*place, number), depth - 1))
            left -= len(inner[-1].sql)
            if left < 0:  # a body may have more conditions than can be parsed in a second
                raise ConditionError(place, TOO_LONG)
        return combine(name, inner, place)
    if name == "not":
        negated = _parse(value, place, depth - 1)
        return Condition(negated.negation, negated.values, negated.sql, weakest=place[:-1])
    if name not in TESTS:
        raise ConditionError(place, f"there is no such test; the tests are {', '.join([*TESTS, *_COMBINE, 'not'])}")
    found = TESTS[name].parse(value, place)
    return replace(found, weakest=place[:-1])


Parser = Callable[[Any, Place], Condition]


class ConditionTest(NamedTuple):
    """A test: the kind of its value (`FLAG`, `TEXTS`, `TIME` or the name of a list), and its parser."""

    kind: str
    parse: Parser


def _boolean(sql: str, negation: str, anchor: str | None = None) -> ConditionTest:
    """Return a test with its SQL and the opposite, and the scan for the contacts of which it is true."""

    def parse(value: Any, place: Place) -> Condition:
        if not isinstance(value, bool):
            raise ConditionError(place, "must be true or false")
        if not value:
            return Condition(negation, negation=sql)
        return Condition(sql, (), negation, () if anchor is None else (IndexScan(anchor),))

    return ConditionTest(FLAG, parse)


def _flag(part: Part, column: str, anchor: str | None = None) -> ConditionTest:
    """Return a test of a boolean column that is false by default."""
    sql = f"coalesce({part.alias}.{column}, {null_default(part.fields[column])})"
    if not part.required:
        rows = f"FROM {part.table} {part.alias}"
        sql = f"EXISTS (SELECT {rows} WHERE {part.alias}.email_id = e.email_id AND {sql})"
        anchor = f"SELECT {part.alias}.email_id {rows}"
    return _boolean(sql, f"NOT {sql}", anchor)


def _text(column: str) -> ConditionTest:
    """Return a test of a text column, in any case."""

    def parse(value: Any, place: Place) -> Condition:
        texts = _texts(value, place)
        anchors = _any_of(f"SELECT e.email_id FROM emails e WHERE lower({column}) = lower(%s::text)", texts)
        wanted = ", ".join(["lower(%s::text)"] * len(texts))
        return Condition(f"lower({column}) IN ({wanted})", tuple(texts), anchors=anchors)

    return ConditionTest(TEXTS, parse)


def _time(column: str) -> ConditionTest:
    """Return a test of a time."""
    bounds: Mapping[str, tuple[str, Callable[[Any, Place], Any]]] = {
        "before": ("<", _moment),
        "since": (">=", _moment),
        "older_than": ("<", _age),
        "newer_than": (">=", _age),
    }

    def parse(value: Any, place: Place) -> Condition:
        members = _members(value, place, bounds)
        found = combine(
            "and",
            [
                Condition(f"{column} {bounds[name][0]} %s", (bounds[name][1](bound, (*place, name)),))
                for name, bound in members.items()
            ],
        )
        scan = IndexScan(f"SELECT e.email_id FROM emails e WHERE {found.sql}", found.values)
        return replace(found, anchors=(scan,))

    return ConditionTest(TIME, parse)


def _entry(part: Part) -> ConditionTest:
    """Return a test for an entry of a list, by its name or by a table of members."""
    state = is_subscribed_sql(part)
    states = {SUBSCRIBED: state, UNSUBSCRIBED: f"NOT {state}", ANY: "true"}
    members: dict[str, Callable[[Any, Place], Iterable[Condition]]] = {
        "name": lambda value, place: [Condition("s.name = ANY(%s)", (_texts(value, place),))],
        "state": lambda value, place: [Condition(states[_choice(value, place, states)])],
        "source": lambda value, place: [Condition("starts_with(s.source, %s)", (_one_text(value, place),))],
    }
    if "fields" in part.columns:
        members["fields"] = _fields

    def parse(value: Any, place: Place) -> Condition:
        given = value if isinstance(value, Mapping) else {"name": value}
        given = {"state": SUBSCRIBED, **_members(given, place, members)}
        tests = [one for name in given for one in members[name](given[name], (*place, name))]
        inner = combine("and", tests)
        sql = f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id AND {inner.sql})"
        if "name" not in given:
            return Condition(sql, inner.values, f"NOT {sql}")
        names = _texts(given["name"], place)
        anchors = _any_of(f"SELECT s.email_id FROM {part.table} s WHERE s.name = %s", names)
        return Condition(sql, inner.values, f"NOT {sql}", anchors)

    return ConditionTest(part.name, parse)


def _any_of(sql: str, values: Sequence[str]) -> Anchors:
    """Return the scans for each of the values, together the only anchor. A long list has none."""
    if len(values) > MAX_SCANS:
        return ()
    return (AnyOf(tuple((IndexScan(sql, (value,)),) for value in values)),)


def _fields(value: Any, place: Place) -> Iterable[Condition]:
    """Parse a test of the fields of a waitlist: a value, or one of several, for each."""
    if not isinstance(value, Mapping) or not value:
        raise ConditionError(place, "must have one or more fields, with their values")
    stored = readable_json("s.fields")
    for name, wanted in value.items():
        here = (*place, name)
        values = [_scalar(one, here) for one in _list(wanted, here)]
        key = _one_text(name, here)
        sql = f"json_typeof({stored} -> %s) || ' ' || ({stored} ->> %s) = ANY(%s)"
        yield Condition(sql, (key, key, values))


def _scalar(value: Any, place: Place) -> str:
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


def _has(part: Part) -> ConditionTest:
    """Return a test for a row of the part."""
    sql = f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id)"
    return _boolean(sql, f"NOT {sql}", f"SELECT s.email_id FROM {part.table} s")


def _has_subscription() -> ConditionTest:
    entries = [
        f"EXISTS (SELECT FROM {part.table} s WHERE s.email_id = e.email_id AND {is_subscribed_sql(part)})"
        for part in LISTS.values()
    ]
    return _boolean(f"({' OR '.join(entries)})", " AND ".join(f"NOT {entry}" for entry in entries))


def _members(value: Any, place: Place, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a table that has one or more of the known members, and no other."""
    if not isinstance(value, Mapping) or not value:
        raise ConditionError(place, f"must have one or more of {', '.join(known)}")
    unknown = [str(name) for name in value if name not in known]
    if unknown:
        raise ConditionError(place, f"has {', '.join(unknown)}, but may have {', '.join(known)}")
    return value


def _choice(value: Any, place: Place, known: Iterable[str]) -> str:
    if value not in list(known):
        raise ConditionError(place, f"must be one of {', '.join(known)}")
    return str(value)


def _list(value: Any, place: Place) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    if not 0 < len(values) <= MAX_VALUES:
        raise ConditionError(place, f"must be a value or a list of 1 to {MAX_VALUES:,}")
    return values


def _texts(value: Any, place: Place) -> list[str]:
    return [_one_text(one, place) for one in _list(value, place)]


def _one_text(value: Any, place: Place) -> str:
    if not isinstance(value, str) or not value:
        raise ConditionError(place, "must be text that is not empty")
    # PostgreSQL cannot store these; nothing would match, and the statement would fail.
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ConditionError(place, "has a character that no contact can have")
    return value


def _moment(value: Any, place: Place) -> datetime:
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


def _age(value: Any, place: Place) -> Age:
    found = _AGE.fullmatch(value) if isinstance(value, str) else None
    if found:
        number, unit = int(found["number"]), found["unit"]
        if 0 < number * _HOURS[unit] <= MAX_YEARS * _HOURS["y"]:
            return Age(number, 0) if unit == "y" else Age(0, number * _HOURS[unit])
    raise ConditionError(place, f"must be a number and h, d or y, as in 90d or 2y: at most {MAX_YEARS} years")


TESTS: Mapping[str, ConditionTest] = {
    "create_timestamp": _time("e.create_timestamp"),
    "update_timestamp": _time("e.update_timestamp"),
    "double_opt_in": _flag(EMAIL, "double_opt_in"),
    "has_opted_out_of_email": _flag(
        EMAIL, "has_opted_out_of_email", "SELECT e.email_id FROM emails e WHERE e.has_opted_out_of_email"
    ),
    "mailing_country": _text("e.mailing_country"),
    "email_lang": _text("e.email_lang"),
    "account_deleted": _flag(FXA, "account_deleted"),
    "mofo_relevant": _flag(MOFO, "mofo_relevant"),
    **{f"has_{name}": _has(part) for name, part in SUB_DOCUMENTS.items()},
    "has_subscription": _has_subscription(),
    **{name: _entry(part) for name, part in LISTS.items()},
}
"""The tests, by name."""
