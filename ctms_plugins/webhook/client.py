"""Signing and posting of messages, and the outcomes of responses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import requests
from standardwebhooks import Webhook

from ctms.plugins import Outcome, Pause, Refused, SlowDown, TryLater
from ctms_plugins.webhook.addresses import NotPublic, PublicOnly

_MOST_BYTES = 65_536
_LONGEST_WAIT_IN_SECONDS = 86_400.0
_USUAL_WAIT_IN_SECONDS = 60.0
_PAUSES = {401: "does not take our signature", 410: "wants no more messages"}


@dataclass(frozen=True)
class WebhookResponse:
    """The response: the status, the delay that the receiver asks for, and the body, truncated to 64 KiB."""

    status: int
    retry_after: float | None = None
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The parsed body, or None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class WebhookClient:
    """Posts signed messages, without redirects, and only to public addresses unless configured otherwise."""

    def __init__(
        self, secrets: Sequence[str], *, allow_private: bool = False, timeout: float = 10, ca_file: Path | None = None
    ) -> None:
        self._signers = [Webhook(secret) for secret in secrets]
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, which would connect for us, and no passwords from a .netrc file
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        if ca_file is not None:
            self._session.verify = str(ca_file)
        if not allow_private:
            self._session.mount("http://", PublicOnly())
            self._session.mount("https://", PublicOnly())

    def post(
        self, url: str, message_id: str, kind: str, happened: str | None, data: Mapping[str, Any]
    ) -> WebhookResponse:
        """Post a message. Raises `OSError` if there is no complete response, and `NotPublic`."""
        now = datetime.now(UTC)
        message = {"type": kind, "timestamp": happened or now.isoformat(), "data": data}
        body = json.dumps(message, separators=(",", ":"))  # in ASCII, since half a surrogate pair is no UTF-8
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "ctms-webhook",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signer.sign(message_id, now, body) for signer in self._signers),
        }
        with self._session.post(
            url, body.encode(), headers=headers, timeout=self._timeout, allow_redirects=False, stream=True
        ) as response:
            # Read, so that the connection can be reused; limited to a reasonable size.
            start = next(response.iter_content(_MOST_BYTES), b"")
            return WebhookResponse(response.status_code, retry_after(response.headers.get("Retry-After")), start)


def problem(error: Exception) -> Outcome:
    """Return the outcome of a request without a response. Raises `error` if it is of another kind."""
    if isinstance(error, NotPublic):
        return Pause("the receiver's address is not public, and CTMS_PLUGIN_WEBHOOK_ALLOW_PRIVATE is not set")
    if isinstance(error, OSError):
        return TryLater(reason=f"no response ({type(error).__name__})")
    raise error


def outcome(answer: WebhookResponse) -> Outcome | None:
    """Return the outcome of a failure response, or None for success."""
    status, after = answer.status, answer.retry_after
    reason = f"HTTP {status}"
    if 200 <= status < 300:
        return None
    if status in _PAUSES:
        return Pause(f"{reason}: the receiver {_PAUSES[status]}")
    if status in {429, 503}:
        return SlowDown(_USUAL_WAIT_IN_SECONDS if after is None else after, reason)
    if status < 400:
        return TryLater(after, f"{reason}: redirects are not followed")
    return TryLater(after, reason) if status >= 500 or status in {408, 425} else Refused(reason)


def retry_after(value: str | None) -> float | None:
    """Return the delay in seconds from a header `Retry-After`: at least a second, at most a day."""
    if not value:
        return None
    if value.strip().isdecimal():
        seconds = float(value)
    else:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 1.0), _LONGEST_WAIT_IN_SECONDS)
