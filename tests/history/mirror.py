"""A follower of `/updates?deleted=true`, and the comparison of its copies with the database."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

Get = Callable[[str, Mapping[str, Any] | None], Any]
"""Calls the service: a path or a whole link, and the query. Returns the body of a 200."""

_STATES = """
    SELECT k.id::text, e.update_timestamp, coalesce(m.mofo_relevant, false), c.changed_at, t.deleted_at
    FROM unnest(%s::uuid[]) AS k (id)
    LEFT JOIN emails e ON e.email_id = k.id
    LEFT JOIN mofo m ON m.email_id = k.id
    LEFT JOIN mofo_relevance_changes c ON c.email_id = k.id
    LEFT JOIN contact_tombstones t ON t.email_id = k.id"""


@dataclass
class Mirror:
    """A client that keeps copies of the contacts, all or those with one value of `mofo_relevant`, as the docs say."""

    get: Get
    start: str
    limit: int
    mofo_relevant: bool | None = None
    copies: dict[str, Any] = field(default_factory=dict)
    _next: str | None = None
    _seen: set[str] = field(default_factory=set)

    def read_page(self) -> bool:
        """Read and apply one page; return whether it was the last one of its walk."""
        page = self.get(self._next or "/updates", None if self._next else self._query())
        changed = {item["email"]["email_id"]: item for item in page["items"]}
        gone = [entry["email_id"] for entry in [*page["deleted"], *page.get("left", [])]]
        assert len(page["items"]) + len(gone) <= self.limit
        assert len({*changed, *gone}) == len(page["items"]) + len(gone)
        assert not self._seen & {*changed, *gone}, "a contact is listed twice in a walk"
        self._seen |= {*changed, *gone}
        self.copies |= changed
        for email_id in gone:
            self.copies.pop(email_id, None)
        self._next = page["next"]
        if self._next is None:
            self.start = page["end"]
            self._seen.clear()
        return self._next is None

    def _query(self) -> dict[str, Any]:
        query = {"start": self.start, "limit": self.limit, "deleted": "true"}
        return query if self.mofo_relevant is None else {**query, "mofo_relevant": self.mofo_relevant}

    def walk(self) -> None:
        """Finish a walk that has begun, and do a whole one."""
        if self._next is not None:
            while not self.read_page():
                pass
        while not self.read_page():
            pass

    def check(self, connection: psycopg.Connection, known: Iterable[str], *, is_quiet: bool = False) -> None:
        """Check the copies of the `known` contacts after a walk.

        A contact that changed since the end of the walk may be an old copy. If no writer is active (`is_quiet`), none
        has changed: the copies are the database's contacts.
        """
        horizon = datetime.fromisoformat(self.start)
        copies = {email_id: moment(document) for email_id, document in self.copies.items()}
        for email_id, updated, relevant, flipped, deleted in connection.execute(_STATES, (list(known),)).fetchall():
            copied = copies.pop(email_id, None)
            matches = self.mofo_relevant is None or relevant is self.mofo_relevant
            last = max(filter(None, (updated, flipped, deleted)), default=None)
            assert not is_quiet or last is None or last < horizon
            if last is None:
                assert copied is None, "a copy of a contact that never existed"
            elif last < horizon:
                assert copied == (updated if matches else None)
        assert not copies


def moment(document: Mapping[str, Any]) -> datetime:
    """Return when the contact of a document changed."""
    return datetime.fromisoformat(document["email"]["update_timestamp"])
