"""Deletion of every profile with the address of a contact, even those created by others, and its verification."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import Any
from uuid import UUID

from ctms.plugins import Done, Identities, Outcome, Refused, TryLater, reading
from ctms_plugins.braze.calls import MAX_IDS, outcomes_of, parts, post
from ctms_plugins.braze.client import BrazeClient, BrazeResponse
from ctms_plugins.braze.mapping import mirrored_id

MAX_ROUNDS = 5
"""Number of consecutive calls that delete the same addresses: each deletes one profile per address."""

LEFT = "profiles with the address are left"

_EXPORTED = ["external_id", "custom_attributes"]


def find_existing(email_ids: Collection[str]) -> set[str]:
    """Return which of these are ids of contacts that exist."""
    with reading() as connection:
        rows = connection.execute(
            "SELECT email_id::text FROM emails WHERE email_id = ANY(%s)", (list(filter(None, map(_uuid, email_ids))),)
        )
        return {email_id for (email_id,) in rows.fetchall()}


class ProfileErasures:
    """Deletes and exports profiles by address; exports stop after `patience` seconds, and the rest is retried."""

    def __init__(
        self,
        client: BrazeClient,
        *,
        patience: float,
        find_existing: Callable[[Collection[str]], Set[str]] = find_existing,
    ) -> None:
        self._client = client
        self._patience = patience
        self._find_existing = find_existing

    def erase(self, identities: Sequence[Identities]) -> dict[str, Outcome]:
        """Delete every profile with one of the addresses. Raises `BrazeBatchRefused`."""
        outcomes: dict[str, Outcome] = {}
        for part in parts([one for one in _once(identities) if one["primary_email"]], MAX_IDS):
            outcomes |= self._erase(part)
        return {str(one["email_id"]): outcomes.get(str(one["email_id"]), Done()) for one in identities}

    def verify(self, identities: Sequence[Identities]) -> dict[str, Outcome]:
        """Look for profiles with the addresses, except those of contacts that exist, perhaps again."""
        give_up = time.monotonic() + self._patience
        outcomes: dict[str, Outcome] = {}
        stopped: Outcome | None = None
        for one in _once(identities):
            if stopped is None and time.monotonic() > give_up:
                stopped = TryLater(1, "not exported yet")
            outcome = stopped or self._look(one)
            if not isinstance(outcome, Done | Refused):
                stopped = outcome
            outcomes[str(one["email_id"])] = outcome
        return outcomes

    def _erase(self, part: Sequence[Identities]) -> dict[str, Outcome]:
        """Delete one profile of each address at a time, until Braze finds none."""
        left = list(part)
        outcomes: dict[str, Outcome] = {}
        for _ in range(MAX_ROUNDS):
            answer = post(self._client, "/users/delete", {"email_addresses": list(_entries(left))}, len(left))
            if not isinstance(answer, BrazeResponse):
                return outcomes | {str(one["email_id"]): answer for one in left}
            found = dict(zip((str(one["email_id"]) for one in left), outcomes_of(answer, len(left)), strict=True))
            outcomes |= found
            left = [one for one in left if isinstance(found[str(one["email_id"])], Done)]
            if not left or answer.body.get("deleted") == 0:
                return outcomes
        # There are many profiles, or Braze counts queued deletions: an export shows which.
        looked = self.verify(left).items()
        return outcomes | {key: TryLater(reason=LEFT) if isinstance(one, Refused) else one for key, one in looked}

    def _look(self, one: Identities) -> Outcome:
        address = one["primary_email"]
        if not address:
            return Done()
        answer = post(self._client, "/users/export/ids", {"email_address": address, "fields_to_export": _EXPORTED}, 1)
        if not isinstance(answer, BrazeResponse):
            return answer
        users = answer.body.get("users")
        if answer.status >= 400:
            return Refused(answer.reason)
        if not isinstance(users, list):
            return TryLater(reason=answer.reason)
        mirrored = [mirrored_id(user) for user in users]
        contacts = {found for found in mirrored if found is not None}
        existing = self._find_existing(contacts) if contacts else ()
        return Done() if all(found in existing for found in mirrored) else Refused(LEFT)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _once(identities: Sequence[Identities]) -> list[Identities]:
    return list({str(one["email_id"]): one for one in identities}.values())


def _entries(identities: Sequence[Identities]) -> Iterator[Mapping[str, Any]]:
    # Any order will do: the next call deletes the next profile.
    for one in identities:
        yield {"email": one["primary_email"], "prioritization": ["most_recently_updated"]}
