"""Messages about changed and deleted contacts."""

from __future__ import annotations

from collections.abc import Sequence

from ctms.plugins import ContactState, Done, Outcome, Pause, SlowDown
from ctms_plugins.webhook.client import WebhookClient, outcome, problem

CHANGED = "contact.changed"
DELETED = "contact.deleted"


class ChangeMessages:
    """Posts one message for each contact, with its id, or also with its `document`."""

    def __init__(self, client: WebhookClient, url: str, *, document: bool = False) -> None:
        self._client = client
        self._url = url
        self._document = document

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> dict[str, Outcome]:
        """Post the messages, until the receiver rejects further ones."""
        outcomes: dict[str, Outcome] = {}
        for contact in contacts:
            found = self._post(contact, f"{idempotency_key}-{contact.email_id}")
            outcomes[contact.email_id] = found
            if isinstance(found, SlowDown | Pause):
                break
        return outcomes

    def _post(self, contact: ContactState, message_id: str) -> Outcome:
        data: dict[str, object] = {"email_id": contact.email_id}
        kind, happened = DELETED, None
        if contact.document is not None:
            kind, happened = CHANGED, contact.document["email"]["update_timestamp"]
            if self._document:
                data["contact"] = contact.document
        try:
            answer = self._client.post(self._url, message_id, kind, happened, data)
        except Exception as error:  # noqa: BLE001  what is none of the network's is raised again
            return problem(error)
        return outcome(answer) or Done()
