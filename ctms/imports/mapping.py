"""The map of an import: which column becomes which member of a contact, and how its values are read.

A map is TOML. A member has the name of a column, or a table: `column` or `value` (a constant), `values` (what the cells
mean, in any case; `"*"` is any other one, `""` an empty cell) and `date` (the cell is a date, in any usual format).
An empty cell gives no value, so an update leaves the member as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from ctms.batches.items import CREATE
from ctms.bulk.dates import parse_date
from ctms.contacts import fields
from ctms.contacts.evidence import EvidenceSchema
from ctms.contacts.registry import IDENTITIES, LISTS, PARTS

Row = Mapping[str, Any]
Item = dict[str, Any]
Place = tuple[str, ...]

ADDRESS = "primary_email"
ANY_OTHER = "*"
_OPTIONS = {"column", "value", "values", "date"}
_MATCH = "match"


class MapError(ValueError):
    """A map is invalid; the message says where, and what to do."""


class RowError(ValueError):
    """A row is unusable: the place in the contact, and a message without values."""

    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = ".".join(place)
        self.message = message


class _Absent:
    """The type of `ABSENT`."""


ABSENT: Final = _Absent()
"""No value: the member is not given."""


@dataclass(frozen=True)
class ColumnRule:
    """The rule for a member: where its value comes from."""

    place: Place
    column: str | None
    value: Any = None
    values: Mapping[str, Any] | None = None
    convert: Callable[[Any], Any] | None = None

    def read(self, row: Row) -> Any:
        """Return the value, or `ABSENT`. Raises `RowError`."""
        if self.column is None:
            return self.value
        cell = row.get(self.column)
        if isinstance(cell, str):
            cell = cell.strip()
        if self.values is not None:
            known = self.values.get("" if cell is None else _key(cell), ABSENT)
            if known is ABSENT and cell not in {None, ""}:
                known = self.values.get(ANY_OTHER, ABSENT)
                if known is ABSENT:
                    raise RowError(self.place, "The map has no such value")
            return known
        if cell is None or cell == "":
            return ABSENT
        return cell if self.convert is None else self._convert(cell)

    def _convert(self, cell: Any) -> Any:
        assert self.convert is not None  # noqa: S101  checked by the caller
        converted = self.convert(cell)
        if converted is None:
            raise RowError(self.place, "Input should be a date")
        return converted


@dataclass(frozen=True)
class EntryRule:
    """The rules for an entry of a list: a newsletter or waitlist."""

    name: str
    subscribed: ColumnRule
    members: Mapping[str, ColumnRule]
    nested: Mapping[str, Mapping[str, ColumnRule]]

    def read(self, row: Row) -> dict[str, Any] | None:
        """Return the entry, None if the row says nothing about it. Raises `RowError`."""
        subscribed = self.subscribed.read(row)
        if subscribed is ABSENT:
            return None
        entry = {"name": self.name, "subscribed": subscribed, **_read(self.members, row)}
        for name, members in self.nested.items():
            if found := _read(members, row):
                entry[name] = found
        return entry


@dataclass(frozen=True)
class ContactMap:
    """A whole map. `match` is the identity by which `update` and `upsert` find the contact."""

    match: ColumnRule
    identity: str
    groups: Mapping[str, Mapping[str, ColumnRule]]
    lists: Mapping[str, tuple[EntryRule, ...]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        rules = [rule for members in self.groups.values() for rule in members.values()]
        for entry in (entry for entries in self.lists.values() for entry in entries):
            rules += [entry.subscribed, *entry.members.values()]
            rules += [rule for members in entry.nested.values() for rule in members.values()]
        return list(dict.fromkeys(rule.column for rule in rules if rule.column is not None))

    def key(self, row: Row) -> str | None:
        """Return the value of the identity, None if the row has none. Rows of one contact have one key."""
        try:
            found = self.match.read(row)
        except RowError:
            return None
        return None if found is ABSENT else str(found)

    def item(self, row: Row, mode: str) -> Item:
        """Return the item of a batch. Raises `RowError`."""
        contact: dict[str, Any] = {}
        for name, members in self.groups.items():
            if found := _read(members, row):
                contact[name] = found
        for name, entries in self.lists.items():
            contact[name] = [entry for rule in entries if (entry := rule.read(row)) is not None]
        if mode == CREATE:
            return {"mode": mode, "contact": contact}
        value = self.match.read(row)
        if value is ABSENT:
            raise RowError(self.match.place, "Field required")
        if self.identity == ADDRESS:  # the stored spelling stays, and a new contact gets the matched one
            del contact["email"]["primary_email"]
        return {"mode": mode, "match": {self.identity: value}, "contact": contact}


def parse_map(data: Mapping[str, Any]) -> ContactMap:
    """Return the map. Raises `MapError`."""
    unknown = data.keys() - PARTS.keys() - {_MATCH}
    if unknown:
        raise MapError(f"unknown: {', '.join(sorted(unknown))} (known: match, {', '.join(PARTS)})")
    groups: dict[str, dict[str, ColumnRule]] = {}
    lists: dict[str, tuple[EntryRule, ...]] = {}
    for name, given in data.items():
        if name == _MATCH:
            continue
        table = _table((name,), given)
        if name in LISTS:
            lists[name] = tuple(_entry((name, entry), rules) for entry, rules in table.items())
        else:
            groups[name] = {member: _member((name, member), member, rule) for member, rule in table.items()}
    identity = data.get(_MATCH, ADDRESS)
    if identity not in IDENTITIES:
        raise MapError(f"match: should be one of {', '.join(IDENTITIES)}")
    one = IDENTITIES[identity]
    match = groups.get(one.part.name, {}).get(one.column)
    if match is None:
        raise MapError(f"match is {identity}, so {one.part.name}.{one.column} needs a column")
    return ContactMap(match, identity, groups, lists)


def _table(place: Place, given: Any) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise MapError(f"{'.'.join(place)}: should be a table")
    return given


def _member(place: Place, member: str, given: Any) -> ColumnRule:
    part = PARTS[place[0]]
    if member not in part.columns:
        raise MapError(f"{'.'.join(place)}: cannot be imported (known: {', '.join(part.columns)})")
    return _rule(place, given, part.fields[member])


def _entry(place: Place, given: Any) -> EntryRule:
    part = PARTS[place[0]]
    table = {"subscribed": given} if isinstance(given, str) else dict(_table(place, given))
    if "subscribed" not in table:
        raise MapError(f"{'.'.join(place)}: needs `subscribed`, a column or a table with a value")
    rules: dict[str, ColumnRule] = {}
    nested: dict[str, dict[str, ColumnRule]] = {}
    for member, rule in table.items():
        inside = (*place, member)
        if member == "name":
            raise MapError(f"{'.'.join(inside)}: the name is that of the table")
        if member == "evidence":
            known = EvidenceSchema().fields
            nested[member] = {
                name: _rule((*inside, name), one, known.get(name)) for name, one in _table(inside, rule).items()
            }
        elif member == "fields" and member in part.columns:
            nested[member] = {name: _rule((*inside, name), one, None) for name, one in _table(inside, rule).items()}
        else:
            rules[member] = _member(inside, member, rule)
    return EntryRule(place[1], rules.pop("subscribed"), rules, nested)


def _rule(place: Place, given: Any, target: Any) -> ColumnRule:
    where = ".".join(place)
    if isinstance(given, str):
        given = {"column": given}
    if not isinstance(given, dict) or not given:
        raise MapError(f"{where}: should be the name of a column, or a table")
    if unknown := given.keys() - _OPTIONS:
        raise MapError(f"{where}: unknown: {', '.join(sorted(unknown))} (known: {', '.join(sorted(_OPTIONS))})")
    if ("column" in given) == ("value" in given):
        raise MapError(f"{where}: needs either `column` or `value`")
    if "value" in given:
        if len(given) > 1:
            raise MapError(f"{where}: `value` stands alone")
        return ColumnRule(place, None, _plain(given["value"]))
    if not isinstance(given["column"], str):
        raise MapError(f"{where}: `column` should be a name")
    values = given.get("values")
    if values is not None:
        values = {_key(name): _plain(value) for name, value in _table((*place, "values"), values).items()}
    return ColumnRule(place, given["column"], None, values, _converter(where, target, given.get("date")))


def _converter(where: str, target: Any, is_date: Any) -> Callable[[Any], Any] | None:
    if is_date not in {None, True, False}:
        raise MapError(f"{where}: `date` should be true or false")
    if isinstance(target, fields.Date):
        return _day
    if is_date or (is_date is None and where.endswith(".evidence.confirmed_at")):
        return _moment
    return _text if isinstance(target, fields.String) else None


def _key(cell: Any) -> str:
    return (str(cell).lower() if isinstance(cell, bool) else str(cell)).strip().casefold()


def _text(cell: Any) -> Any:
    """Return a number as text; the schema refuses anything else."""
    return str(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else cell


def _day(cell: Any) -> str | None:
    found = parse_date(str(cell))
    return found.date().isoformat() if found else None


def _moment(cell: Any) -> str | None:
    found = parse_date(str(cell))
    return found.isoformat() if found else None


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _read(rules: Mapping[str, ColumnRule], row: Row) -> dict[str, Any]:
    return dict(_given(rules, row))


def _given(rules: Mapping[str, ColumnRule], row: Row) -> Iterator[tuple[str, Any]]:
    for name, rule in rules.items():
        value = rule.read(row)
        if value is not ABSENT:
            yield name, value
