"""Deletion of every profile with the address of a contact, even those created by others, and its verification."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from uuid import UUID

import idna

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
        for part in parts(_all_spellings(identities), MAX_IDS):
            outcomes |= self._erase(part)
        return _by_contact(identities, outcomes)

    def verify(self, identities: Sequence[Identities]) -> dict[str, Outcome]:
        """Look for profiles with the addresses, except those of contacts that exist, perhaps again."""
        return _by_contact(identities, self._look_for(_all_spellings(identities)))

    def _erase(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Delete one profile of each address at a time, until Braze finds none."""
        left = addresses
        outcomes: dict[str, Outcome] = {}
        for _ in range(MAX_ROUNDS):
            # Any order will do: the next call deletes the next profile.
            entries = [{"email": one, "prioritization": ["most_recently_updated"]} for one in left]
            answer = post(self._client, "/users/delete", {"email_addresses": entries}, len(left))
            if not isinstance(answer, BrazeResponse):
                return outcomes | dict.fromkeys(left, answer)
            found = dict(zip(left, outcomes_of(answer, len(left)), strict=True))
            outcomes |= found
            left = [one for one in left if isinstance(found[one], Done)]
            if not left or answer.body.get("deleted") == 0:
                return outcomes
        # There are many profiles, or Braze counts queued deletions: an export shows which.
        looked = self._look_for(left).items()
        return outcomes | {key: TryLater(reason=LEFT) if isinstance(one, Refused) else one for key, one in looked}

    def _look_for(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        give_up = time.monotonic() + self._patience
        outcomes: dict[str, Outcome] = {}
        stopped: Outcome | None = None
        for address in addresses:
            if stopped is None and time.monotonic() > give_up:
                stopped = TryLater(1, "not exported yet")
            outcome = stopped or self._look(address)
            if not isinstance(outcome, Done | Refused):
                stopped = outcome
            outcomes[address] = outcome
        return outcomes

    def _look(self, address: str) -> Outcome:
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


def _spellings(address: str | None) -> list[str]:
    """Return the address, and with its domain as A-labels (RFC 5890), which others may have sent; [] without one."""
    if not address:
        return []
    local, at, domain = address.rpartition("@")
    if domain.isascii():
        return [address]
    try:
        return [address, f"{local}{at}{idna.encode(domain, uts46=True).decode()}"]
    except idna.IDNAError:
        return [address]


def _all_spellings(identities: Sequence[Identities]) -> list[str]:
    return list(dict.fromkeys(spelling for one in identities for spelling in _spellings(one["primary_email"])))


def _by_contact(identities: Sequence[Identities], outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Return the outcome of each contact: done if all spellings are, refused if one is, else the first delay."""
    found: dict[str, Outcome] = {}
    for one in identities:
        of_spellings = [outcomes[spelling] for spelling in _spellings(one["primary_email"])]
        unfinished = [outcome for outcome in of_spellings if not isinstance(outcome, Done)]
        refused = [outcome for outcome in unfinished if isinstance(outcome, Refused)]
        found[str(one["email_id"])] = next(iter([*refused, *unfinished]), Done())
    return found
