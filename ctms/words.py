"""Nouns with their numbers, for messages."""

from __future__ import annotations


def pluralize(number: int, singular: str, plural: str | None = None) -> str:
    """Return the noun as it follows the number; without `plural` that is the singular and an s."""
    return singular if number == 1 else plural or f"{singular}s"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return the number and the noun, as in "1 contact" and "1,204 contacts"."""
    return f"{number:,} {pluralize(number, singular, plural)}"
