"""Legacy addresses: invalid text that an adopted database stores as an address, because its service accepted it."""

from __future__ import annotations

from collections.abc import Sequence

from ctms.database.pool import Connection

# Contacts' own addresses and those of their accounts, each by the index on `lower(…)`.
_FIND = """
    SELECT g.position, g.text FROM unnest(%(positions)s::int[], %(texts)s::text[]) AS g (position, text)
    JOIN emails e ON lower(e.primary_email) = lower(g.text)
    UNION
    SELECT g.position, g.text FROM unnest(%(positions)s::int[], %(texts)s::text[]) AS g (position, text)
    JOIN fxa f ON lower(f.primary_email) = lower(g.text)"""


def find_stored(connection: Connection, wanted: Sequence[Sequence[str]]) -> list[str | None]:
    """Return, for each sequence of texts, the first that is stored as an address, in any case; None if none is."""
    positions = [position for position, texts in enumerate(wanted) for _ in texts]
    flat = [text for texts in wanted for text in texts]
    rows = set(connection.execute(_FIND, {"positions": positions, "texts": flat}).fetchall())
    return [next((text for text in texts if (position, text) in rows), None) for position, texts in enumerate(wanted)]
