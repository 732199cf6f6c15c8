"""Profiles in Braze that mirror the contacts: external id, attributes, deletion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctms.plugins import ContactState, Outcome
from ctms_plugins.braze.calls import MAX_IDS, outcomes_of, parts, post
from ctms_plugins.braze.client import BrazeClient, BrazeResponse
from ctms_plugins.braze.mapping import EXPORTED, attributes_of, document_of

MAX_CONTACTS_PER_CALL = 75


class NoExport(OSError):
    """Braze does not export profiles now."""


class Profiles:
    """Tracks existing contacts, deletes gone ones, exports profiles for comparison."""

    def __init__(self, client: BrazeClient, *, resubscribe: bool = False) -> None:
        self._client = client
        self._resubscribe = resubscribe

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> dict[str, Outcome]:
        """Update the profiles of the contacts. Raises `BrazeBatchRefused`."""
        outcomes: dict[str, Outcome] = {}
        there = [contact for contact in contacts if contact.document is not None]
        away = [contact.email_id for contact in contacts if contact.document is None]
        for part in parts(there, MAX_CONTACTS_PER_CALL):
            attributes = [
                attributes_of(contact.email_id, contact.document or {}, resubscribe=self._resubscribe)
                for contact in part
            ]
            ids = [contact.email_id for contact in part]
            outcomes |= self._post("/users/track", {"attributes": attributes}, ids)
        for gone in parts(away, MAX_IDS):
            outcomes |= self._post("/users/delete", {"external_ids": gone}, gone)
        return outcomes

    def fetch(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return Braze's data. Raises `OSError` if Braze does not export it."""
        found: dict[str, Mapping[str, Any]] = {}
        for ids in parts(email_ids, MAX_IDS):
            answer = self._client.post("/users/export/ids", {"external_ids": ids, "fields_to_export": EXPORTED})
            users = answer.body.get("users") if isinstance(answer, BrazeResponse) else None
            if not isinstance(users, list):
                raise NoExport(answer.reason if isinstance(answer, BrazeResponse) else str(answer))
            found |= {user["external_id"]: document_of(user) for user in users}
        return {email_id: found[email_id] for email_id in email_ids if email_id in found}

    def _post(self, path: str, body: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Outcome]:
        answer = post(self._client, path, body, len(ids))
        if not isinstance(answer, BrazeResponse):
            return dict.fromkeys(ids, answer)
        return dict(zip(ids, outcomes_of(answer, len(ids)), strict=True))
