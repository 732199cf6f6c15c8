"""Comparison of a contact with another system's copy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def differences(document: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """Return where `kept`, parts of a document as `Fetches.fetch` returns them, differs: places, never values.

    Only the members of `kept` are compared: `email.first_name`. Lists of named entries must have the same names:
    `newsletters.weekly`, `newsletters.weekly.lang`.
    """
    return list(_differences(document, kept, ""))


def _differences(document: Any, kept: Any, place: str) -> Iterator[str]:
    if isinstance(kept, Mapping) and isinstance(document, Mapping):
        for name, value in kept.items():
            below = f"{place}.{name}" if place else str(name)
            if name in document:
                yield from _differences(document[name], value, below)
            else:
                yield below
    elif _is_named(kept) and _is_named(document):
        there, here = ({entry["name"]: entry for entry in entries} for entries in (kept, document))
        for name in sorted({*there, *here}):
            if name in there and name in here:
                yield from _differences(here[name], there[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"
    elif kept != document:
        yield place


def _is_named(entries: Any) -> bool:
    return (
        isinstance(entries, Sequence)
        and not isinstance(entries, str)
        and all(isinstance(entry, Mapping) and isinstance(entry.get("name"), str) for entry in entries)
    )
