"""Profiles of Braze that are like the contacts: external id, attributes, gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctms.plugins import ContactState, Done, Outcome, Refused, TryLater
from ctms_plugins.braze.client import Answer, Client
from ctms_plugins.braze.mapping import EXPORTED, attributes_of, document_of

MOST_IN_A_CALL = 75
_MOST_IDS_IN_A_CALL = 50


class RefusedTogether(Exception):
    """Braze refuses a call and does not say for whom. They are to be tried in halves: one may be at fault."""


class NoExport(OSError):
    """Braze does not export profiles now."""


class Profiles:
    """Tracks who is there, deletes who is gone, exports to compare."""

    def __init__(self, client: Client, *, resubscribe: bool = False) -> None:
        self._client = client
        self._resubscribe = resubscribe

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> dict[str, Outcome]:
        """Make the profiles like the contacts. Raises `RefusedTogether`."""
        outcomes: dict[str, Outcome] = {}
        there = [contact for contact in contacts if contact.document is not None]
        away = [contact.email_id for contact in contacts if contact.document is None]
        for part in _parts(there, MOST_IN_A_CALL):
            attributes = [
                attributes_of(contact.email_id, contact.document or {}, resubscribe=self._resubscribe)
                for contact in part
            ]
            ids = [contact.email_id for contact in part]
            outcomes |= self._post("/users/track", {"attributes": attributes}, ids)
        for gone in _parts(away, _MOST_IDS_IN_A_CALL):
            outcomes |= self._post("/users/delete", {"external_ids": gone}, gone)
        return outcomes

    def fetch(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return what Braze has. Raises `OSError` when it does not tell."""
        found: dict[str, Mapping[str, Any]] = {}
        for ids in _parts(email_ids, _MOST_IDS_IN_A_CALL):
            answer = self._client.post("/users/export/ids", {"external_ids": ids, "fields_to_export": EXPORTED})
            users = answer.body.get("users") if isinstance(answer, Answer) else None
            if not isinstance(users, list):
                raise NoExport(answer.reason if isinstance(answer, Answer) else str(answer))
            found |= {user["external_id"]: document_of(user) for user in users}
        return {email_id: found[email_id] for email_id in email_ids if email_id in found}

    def _post(self, path: str, body: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Outcome]:
        try:
            answer = self._client.post(path, body)
        except OSError as error:
            answer = TryLater(reason=f"no answer ({type(error).__name__})")
        if isinstance(answer, Refused) and len(ids) > 1:
            raise RefusedTogether(answer.reason)
        if not isinstance(answer, Answer):
            return dict.fromkeys(ids, answer)
        return self._judged(answer, ids)

    def _judged(self, answer: Answer, ids: Sequence[str]) -> dict[str, Outcome]:
        taken = answer.status < 400
        errors = answer.errors()
        at_fault = {index: what for index, what in errors.items() if index is not None and 0 <= index < len(ids)}
        if len(at_fault) < len(errors) or not (taken or errors):
            # Something is wrong, and nobody says with whom.
            if len(ids) > 1:
                raise RefusedTogether(answer.reason)
            return {ids[0]: Refused(answer.reason)}
        others: Outcome = Done() if taken else TryLater(1, "came with others that were refused")
        return {
            email_id: Refused(f"Braze: {at_fault[index]}") if index in at_fault else others
            for index, email_id in enumerate(ids)
        }


def _parts(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(things), size):
        yield things[start : start + size]
