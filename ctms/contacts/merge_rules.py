"""The rules by which two contacts become one: what the target takes from the source (decision 022).

They read stored values and write nothing, so that a merge and its preview cannot differ (`merging` applies them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ctms import addresses
from ctms.contacts.classification import CONSENT
from ctms.contacts.parts import Part
from ctms.contacts.registry import ADDRESSES, EMAIL, IDENTITIES, LISTS, SUB_DOCUMENTS

Row = Mapping[str, Any]

_OPTED_OUT, _REASON, _CONFIRMED = "has_opted_out_of_email", "unsubscribe_reason", "double_opt_in"
_RULED = {"email_id", "primary_email", _OPTED_OUT, _REASON, _CONFIRMED}
"""Columns of `emails` that have rules of their own."""


@dataclass(frozen=True)
class StoredContact:
    """The stored rows of a contact: one by the name of each sub-document that it has, `email` included, and lists.

    The rows of a list are stored by the name of the entry.
    """

    groups: Mapping[str, Row]
    lists: Mapping[str, Mapping[str, Row]]


class FilledField(NamedTuple):
    """A field of the target that the source has filled."""

    part: str
    field: str


class MergeConflict(NamedTuple):
    """A value of the source that the target cannot hold, because it has another one."""

    part: str
    field: str
    value: Any


class Decision(NamedTuple):
    """The decision that counts for an entry of a list of the source.

    `is_source` is false if the target's own entry counts, which is stored as `target_row`.
    """

    part: str
    name: str
    is_source: bool
    subscribed: bool
    source_row: Row
    target_row: Row | None


class MergedGroup(NamedTuple):
    """Values to write into a sub-document of the target, and when it was created."""

    values: dict[str, Any]
    create_timestamp: Any


@dataclass
class MergePlan:
    """The changes of the target, and the values of the source that are lost (`conflicts`)."""

    email: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, MergedGroup] = field(default_factory=dict)
    filled: list[FilledField] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    conflicts: list[MergeConflict] = field(default_factory=list)

    @property
    def lost_addresses(self) -> list[str]:
        """The addresses of the source among the conflicts."""
        return [one.value for one in self.conflicts if (one.part, one.field) in _ADDRESS_COLUMNS]


def plan_merge(target: StoredContact, source: StoredContact) -> MergePlan:
    """Return what merging the source into the target changes."""
    found = MergePlan()
    own, other = target.groups[EMAIL.name], source.groups[EMAIL.name]
    _plan_email(found, own, other)
    for name, part in SUB_DOCUMENTS.items():
        if name in source.groups:
            _plan_group(found, part, target.groups.get(name), source.groups[name])
    _plan_address(found, target, source)
    for name in LISTS:
        found.decisions += _decide(name, target.lists[name], source.lists[name])
    return found


def _plan_email(found: MergePlan, own: Row, other: Row) -> None:
    found.email |= _fill(found, EMAIL, [column for column in EMAIL.columns if column not in _RULED], own, other)
    is_out, was_out = bool(other[_OPTED_OUT]), bool(own[_OPTED_OUT])
    if is_out and not was_out:
        # The reason of the opt-out that counts; one that the target has without an opt-out explains nothing.
        changes = {_OPTED_OUT: True, _REASON: other[_REASON] or own[_REASON]}
        found.email |= changes
        found.filled += [FilledField(EMAIL.name, column) for column in changes if changes[column] != own[column]]
    elif is_out or not was_out:
        found.email |= _fill(found, EMAIL, [_REASON], own, other)
    else:
        _report(found, EMAIL, [_REASON], own, other)
    if other[_CONFIRMED] and not own[_CONFIRMED]:
        # A confirmation is about an address: it counts only for the address that the target has.
        if addresses.is_same(own["primary_email"], other["primary_email"]):
            found.email[_CONFIRMED] = True
            found.filled.append(FilledField(EMAIL.name, _CONFIRMED))
        else:
            found.conflicts.append(MergeConflict(EMAIL.name, _CONFIRMED, value=True))


def _plan_group(found: MergePlan, part: Part, own: Row | None, other: Row) -> None:
    """Plan a sub-document: the source's as a whole if the target has none, else what the target's lacks.

    If the two describe different accounts, only identities are filled: a value of one account is wrong for another.
    """
    if all(_is_blank(part, column, other[column]) for column in part.columns):
        return
    if own is None or all(_is_blank(part, column, own[column]) for column in part.columns):
        values = {column: other[column] for column in part.columns}
        found.groups[part.name] = MergedGroup(values, other["create_timestamp"])
        kept = (column for column in part.columns if not _is_blank(part, column, other[column]))
        found.filled += [FilledField(part.name, column) for column in kept]
        return
    identities = {one.column for one in IDENTITIES.values() if one.part is part}
    is_other_account = _has_other_account(part, own, other)
    # A consent that the target has not given is no blank: a contact that has the sub-document keeps its own.
    consents = {column for column in part.columns if part.classifications.get(column) is CONSENT}
    fillable = [one for one in part.columns if one not in consents and (one in identities or not is_other_account)]
    values = _fill(found, part, fillable, own, other)
    _report(found, part, [column for column in part.columns if column not in fillable], own, other)
    if values:
        found.groups[part.name] = MergedGroup(
            {**{name: own[name] for name in part.columns}, **values}, own["create_timestamp"]
        )


def _has_other_account(part: Part, own: Row, other: Row) -> bool:
    """Return whether the two have ids of the part, and none in common. Addresses change, so they prove nothing."""
    ids = [one.column for one in IDENTITIES.values() if one.part is part and not one.is_address]
    both = [(own[column], other[column]) for column in ids if own[column] and other[column]]
    return bool(both) and all(mine != theirs for mine, theirs in both)


def _plan_address(found: MergePlan, target: StoredContact, source: StoredContact) -> None:
    """Report the source's own address, unless the merged contact has it."""
    address = source.groups[EMAIL.name]["primary_email"]
    kept = [target.groups[EMAIL.name]["primary_email"]]
    for one in ADDRESSES.values():
        group = (
            found.groups[one.part.name].values if one.part.name in found.groups else target.groups.get(one.part.name)
        )
        kept.append((group or {}).get(one.column) or "")
    if not any(addresses.is_same(address, other) for other in kept):
        found.conflicts.insert(0, MergeConflict(EMAIL.name, "primary_email", address))


def _fill(found: MergePlan, part: Part, columns: Iterable[str], own: Row, other: Row) -> dict[str, Any]:
    """Return the values of the source for blank columns of the target; report those that differ from the target's."""
    values = {}
    for column in columns:
        if _is_blank(part, column, own[column]) and not _is_blank(part, column, other[column]):
            values[column] = other[column]
            found.filled.append(FilledField(part.name, column))
        else:
            _report(found, part, [column], own, other)
    return values


def _report(found: MergePlan, part: Part, columns: Iterable[str], own: Row, other: Row) -> None:
    """Report the values of the source that differ from the target's."""
    for column in columns:
        mine, theirs = own[column], other[column]
        if mine == theirs or _is_blank(part, column, theirs):
            continue
        if (part.name, column) in _ADDRESS_COLUMNS and mine and addresses.is_same(mine, theirs):
            continue
        found.conflicts.append(MergeConflict(part.name, column, theirs))


_ADDRESS_COLUMNS = {(one.part.name, one.column) for one in ADDRESSES.values()}


def _is_blank(part: Part, column: str, value: Any) -> bool:
    return value is None or value == "" or value == part.defaults.get(column)


def _decide(part: str, own: Mapping[str, Row], others: Mapping[str, Row]) -> Iterator[Decision]:
    """Yield, for each entry of the source, whose decision counts: the later one; of two at once an unsubscription."""
    for name, other in sorted(others.items()):
        mine = own.get(name)
        is_source = mine is None or _order(other) > _order(mine)
        counting = other if is_source or mine is None else mine
        yield Decision(part, name, is_source, counting["subscribed"], other, mine)


def _order(row: Row) -> tuple[Any, bool]:
    return row["update_timestamp"], not row["subscribed"]
