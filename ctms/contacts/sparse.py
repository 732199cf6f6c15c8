"""Selections of a contact's fields by the names that the API uses: `email`, `email.primary_email`, `newsletters`.

`parse_fields` is their only parser; the names derive from the registry of a contact's parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ctms.contacts.parts import Part
from ctms.contacts.registry import PARTS

PART_MEMBERS = tuple(f"{name}.{member}" for name, part in sorted(PARTS.items()) for member in part.fields)
"""The names of the members of parts."""
FIELDS = (*sorted(PARTS), *PART_MEMBERS)
"""The names that `parse_fields` knows: parts, and their members."""

Selection = Mapping[str, tuple[str, ...]]
"""The selected columns of each selected part; parts in the order of documents, columns in that of the schema."""


class FieldsError(ValueError):
    """A field does not exist: the message has the known names."""


def all_fields() -> Selection:
    """Return the selection of everything."""
    return {name: tuple(part.fields) for name, part in sorted(PARTS.items())}


def parse_fields(names: Iterable[str]) -> Selection:
    """Parse names of parts, and of their members as `part.member`. Raises `FieldsError`, also if there is no name."""
    wanted: dict[str, set[str]] = {}
    for given in names:
        name, dot, member = given.partition(".")
        part = PARTS.get(name)
        if part is None:
            raise FieldsError(f"{given}: there is no such field; the fields are {', '.join(sorted(PARTS))}")
        if dot and member not in part.fields:
            raise FieldsError(f"{given}: there is no such field; {name} has {', '.join(part.fields)}")
        wanted.setdefault(name, set()).update([member] if dot else part.fields)
    if not wanted:
        raise FieldsError("name one or more fields")
    return {name: _in_order(PARTS[name], wanted[name]) for name in sorted(wanted)}


def _in_order(part: Part, members: set[str]) -> tuple[str, ...]:
    return tuple(name for name in part.fields if name in members)
