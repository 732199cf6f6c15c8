"""What both clients have in common."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

from ctms_client.errors import TransportError, redact
from ctms_client.logs import redact_urls
from ctms_client.tokens import TokenAuth

DEFAULT_TIMEOUT = httpx.Timeout(30, connect=5)


class Session:
    """The settings of a client of `httpx`."""

    def __init__(self, url: str, client_id: str, client_secret: str, timeout: httpx.Timeout | float) -> None:
        self.url = url.rstrip("/")
        self._auth = TokenAuth(f"{self.url}/token", client_id, client_secret)
        self._timeout = timeout
        redact_urls(self.url)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the client. No token is ever sent to another host: redirects are not followed."""
        return {
            "base_url": self.url,
            "auth": self._auth,
            "timeout": self._timeout,
            "follow_redirects": False,
            "headers": {"User-Agent": f"ctms-client/{_version()}", "Accept": "application/json"},
        }


def transport_error(method: str, error: httpx.TransportError) -> TransportError:
    """Return the exception for a request without a response."""
    text = redact(str(error))
    return TransportError(f"{method} failed: {type(error).__name__}{f': {text}' if text else ''}")


def _version() -> str:
    try:
        return version("ctms-client")
    except PackageNotFoundError:  # used from a checkout
        return "0"
