"""Legacy addresses: invalid text that an adopted database stores as an address, because its service accepted it."""

from __future__ import annotations

from collections.abc import Sequence

from ctms.contacts.registry import ADDRESSES
from ctms.database.pool import Connection

# Each kind of address by its index on `lower(…)`.
_FIND = " UNION ".join(
    f"""
    SELECT g.position, g.text FROM unnest(%(positions)s::int[], %(texts)s::text[]) AS g (position, text)
    JOIN {one.part.table} {one.part.alias} ON lower({one.sql}) = lower(g.text)"""
    for one in ADDRESSES.values()
)


def find_stored(connection: Connection, wanted: Sequence[Sequence[str]]) -> list[str | None]:
    """Return, for each sequence of texts, the first that is stored as an address, in any case; None if none is."""
    positions = [position for position, texts in enumerate(wanted) for _ in texts]
    flat = [text for texts in wanted for text in texts]
    rows = set(connection.execute(_FIND, {"positions": positions, "texts": flat}).fetchall())
    return [next((text for text in texts if (position, text) in rows), None) for position, texts in enumerate(wanted)]
