"""Fixtures of the plugin `webhook`'s tests."""

from __future__ import annotations

import base64
from typing import Any

from standardwebhooks import Webhook

from ctms.testing import ReceivedRequest
from ctms_plugins.webhook.client import WebhookClient
from tests.waiting import timeout_of_requests

OLD, NEW = (f"whsec_{base64.b64encode(bytes([number]) * 32).decode()}" for number in (1, 2))
ENVIRONMENT = {
    "CTMS_PLUGIN_WEBHOOK_URL": "https://hooks.example.com/ctms",
    "CTMS_PLUGIN_WEBHOOK_SECRETS": f"{OLD},{NEW}",
}


def client(*secrets: str, failure: str = "", allow_private: bool = True) -> WebhookClient:
    """Make a client that may call this machine, where a stub server fails in this way."""
    return WebhookClient(secrets or (OLD,), allow_private=allow_private, timeout=timeout_of_requests(failure))


def verified(request: ReceivedRequest, secret: str = OLD) -> Any:
    """Return the message of a request, as a receiver reads it that has this secret; raises when it is not signed so."""
    return Webhook(secret).verify(request.body, dict(request.headers))
