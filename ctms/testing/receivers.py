"""In-memory fakes of a backend and a deletion handler, to test the code that calls them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ctms.hooks.receivers import ContactState, Identities, Outcomes


class FakeBackend:
    """A backend that keeps what was pushed: `contacts` by id, the batches (`calls`) and their `keys`.

    It returns `answer`, which is None at first, or raises it if it is an exception; then it keeps nothing.
    """

    def __init__(self) -> None:
        self.contacts: dict[str, Mapping[str, Any]] = {}
        self.calls: list[Sequence[ContactState]] = []
        self.keys: list[str] = []
        self.answer: Outcomes | Exception = None

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Outcomes:
        """Keep the contacts. Raises `answer` if it is an exception."""
        self.calls.append(contacts)
        self.keys.append(idempotency_key)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            for contact in contacts:
                if contact.document is None:
                    self.contacts.pop(contact.email_id, None)
                else:
                    self.contacts[contact.email_id] = contact.document
        return self.answer

    def fetch(self, email_ids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the kept ones among these contacts."""
        return {email_id: self.contacts[email_id] for email_id in email_ids if email_id in self.contacts}


class FakeDeletionHandler:
    """A deletion handler that keeps the identities that it received: `erased` and `verified`.

    It returns `answer`, which is None at first, or raises it if it is an exception.
    """

    def __init__(self) -> None:
        self.erased: list[Identities] = []
        self.verified: list[Identities] = []
        self.answer: Outcomes | Exception = None

    def erase(self, identities: Sequence[Identities]) -> Outcomes:
        """Keep the identities. Raises `answer` if it is an exception."""
        self.erased.extend(identities)
        return self._answered()

    def verify(self, identities: Sequence[Identities]) -> Outcomes:
        """Keep the identities. Raises `answer` if it is an exception."""
        self.verified.extend(identities)
        return self._answered()

    def _answered(self) -> Outcomes:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer
