"""The contacts under a legal hold, also those that a held contact was merged into."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from uuid import UUID

from ctms.contacts import merged_addresses
from ctms.contacts.registry import ADDRESSES
from ctms.database.pool import Connection
from ctms.retention.policy import LegalHold

_ADDRESSES = " UNION ALL ".join(
    f"SELECT email_id, {one.column} FROM {one.part.table} WHERE email_id = ANY(%(ids)s) AND {one.column} IS NOT NULL"
    for one in ADDRESSES.values()
)

# The events of a merged contact name it for longer than its tombstone does, but not every contact has events.
_MERGED = """
    WITH RECURSIVE merged AS (
        SELECT merged_into AS email_id FROM contact_tombstones WHERE email_id = ANY(%(held)s)
        UNION
        SELECT t.merged_into FROM merged m JOIN contact_tombstones t USING (email_id))
    SELECT email_id FROM merged WHERE email_id = ANY(%(ids)s)
    UNION
    SELECT email_id FROM subscription_events WHERE email_id = ANY(%(ids)s) AND merged_from = ANY(%(held)s)
    UNION
    SELECT email_id FROM merged_addresses WHERE email_id = ANY(%(ids)s) AND fingerprint = ANY(%(fingerprints)s)"""


class HeldContacts:
    """The contacts that a legal hold covers."""

    def __init__(self, hold: LegalHold) -> None:
        self._hold = hold

    def find(self, connection: Connection, email_ids: Collection[UUID]) -> set[UUID]:
        """Return the contacts under the hold among these."""
        hold, ids = self._hold, list(email_ids)
        if not ids or not (hold.ids or hold.keys):
            return set()
        addresses: Mapping[UUID, Sequence[str]] = self._addresses(connection, ids) if hold.keys else {}
        values = {"ids": ids, "held": list(hold.ids), "fingerprints": self._fingerprints}
        merged = {email_id for (email_id,) in connection.execute(_MERGED, values).fetchall()}
        return merged | {email_id for email_id in ids if hold.covers(email_id, addresses.get(email_id, ()))}

    @cached_property
    def _fingerprints(self) -> list[bytes]:
        _, found = merged_addresses.by_position(list(self._hold.keys))
        return found

    @staticmethod
    def _addresses(connection: Connection, ids: list[UUID]) -> dict[UUID, list[str]]:
        found: dict[UUID, list[str]] = defaultdict(list)
        for email_id, address in connection.execute(_ADDRESSES, {"ids": ids}).fetchall():
            found[email_id].append(address)
        return found
