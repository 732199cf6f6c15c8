"""Messages that request and verify erasures."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from ctms.plugins import Accepted, Done, Identities, Outcome, Outcomes, Refused, TryLater
from ctms_plugins.webhook.client import WebhookClient, WebhookResponse, outcome, problem

ERASED = "contact.erased"
VERIFY = "contact.erased.verify"
_USUAL_WAIT_IN_SECONDS = 3600.0


class WebhookBatchRefused(Exception):
    """The receiver refuses a message about several contacts. The batch is to be bisected, since one may be faulty."""


class ErasureMessages:
    """Posts one message for a batch of contacts, with their identities."""

    def __init__(self, client: WebhookClient, url: str) -> None:
        self._client = client
        self._url = url

    def erase(self, identities: Sequence[Identities]) -> Outcomes:
        """Request the erasure of these contacts. Raises `WebhookBatchRefused`."""
        answer = self._post(self._url, ERASED, identities)
        if isinstance(answer, WebhookResponse) and answer.status == 202:
            return Accepted(answer.retry_after or _USUAL_WAIT_IN_SECONDS)
        return answer if not isinstance(answer, WebhookResponse) else Done()

    def _post(self, url: str, kind: str, identities: Sequence[Identities]) -> WebhookResponse | Outcome:
        if not identities:
            return Done()
        # A new id for each attempt: a receiver ignores an id that it has seen, but a person who registers and leaves
        # again has the same identities.
        message_id = f"msg_{uuid.uuid4().hex}"
        contacts = list({str(one["email_id"]): dict(one) for one in identities}.values())
        try:
            answer = self._client.post(url, message_id, kind, None, {"contacts": contacts})
        except Exception as error:  # noqa: BLE001  what is none of the network's is raised again
            return problem(error)
        found = outcome(answer)
        if isinstance(found, Refused) and len(contacts) > 1:
            raise WebhookBatchRefused(found.reason)
        return answer if found is None else found


class VerifiedErasureMessages(ErasureMessages):
    """Asks for verification afterwards, at a separate URL."""

    def __init__(self, client: WebhookClient, url: str, verify_url: str) -> None:
        super().__init__(client, url)
        self._verify_url = verify_url

    def verify(self, identities: Sequence[Identities]) -> Outcomes:
        """Ask whether data of these contacts are left. Only an explicit response confirms that none are."""
        answer = self._post(self._verify_url, VERIFY, identities)
        if not isinstance(answer, WebhookResponse):
            return answer
        if answer.status == 202:
            return TryLater(answer.retry_after or _USUAL_WAIT_IN_SECONDS, "still in progress")
        if answer.status == 204:
            return Done()
        remaining = answer.json.get("remaining") if isinstance(answer.json, dict) else None
        if not isinstance(remaining, list):
            return TryLater(reason="a response without the list `remaining`")
        left = Refused("the receiver still has data")
        return {str(one["email_id"]): left if one["email_id"] in remaining else Done() for one in identities}
