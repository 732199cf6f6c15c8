"""Access tokens by OAuth 2 client credentials (RFC 6749, 4.4)."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass, field

import anyio
import httpx

from ctms_client.errors import (
    AuthenticationError,
    InvalidResponseError,
    ResponseError,
    error_of,
)
from ctms_client.retries import REPEATABLE

MAX_MARGIN_SECONDS = 30.0
"""A token is renewed this long before it expires, or after three quarters of a shorter life."""


@dataclass(frozen=True, eq=False)
class _Token:
    value: str = field(repr=False)
    renew_at: float


class TokenAuth(httpx.Auth):
    """Adds a token to each request. It is shared by all threads and tasks; only one of them renews it.

    The token is renewed before it expires, and once for a request that was refused with 401.
    """

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self._url = url
        self._basic = b64encode(f"{client_id}:{client_secret}".encode()).decode()
        self._token: _Token | None = None
        self._lock = threading.Lock()
        self._async_lock = anyio.Lock()

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        refused: _Token | None = None
        for _ in range(2):
            token = self._current(refused)
            if token is None:
                with self._lock:
                    token = self._current(refused)
                    if token is None:
                        sent_at = time.monotonic()
                        response = yield self._token_request(request)
                        response.read()
                        token = self._store(response, sent_at)
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
            if response.status_code != 401:
                return
            refused = token

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        refused: _Token | None = None
        for _ in range(2):
            token = self._current(refused)
            if token is None:
                async with self._async_lock:
                    token = self._current(refused)
                    if token is None:
                        sent_at = time.monotonic()
                        response = yield self._token_request(request)
                        await response.aread()
                        token = self._store(response, sent_at)
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
            if response.status_code != 401:
                return
            refused = token

    def _current(self, refused: _Token | None) -> _Token | None:
        """Return the token unless it expires soon or has been refused."""
        token = self._token
        usable = token is not None and token is not refused and time.monotonic() < token.renew_at
        return token if usable else None

    def _token_request(self, request: httpx.Request) -> httpx.Request:
        return httpx.Request(
            "POST",
            self._url,
            headers={"Authorization": f"Basic {self._basic}", "Accept": "application/json"},
            data={"grant_type": "client_credentials"},
            # The timeouts of the request that needs the token.
            extensions={**request.extensions, REPEATABLE: True},
        )

    def _store(self, response: httpx.Response, sent_at: float) -> _Token:
        if response.status_code != 200:
            raise self._error(response)
        try:
            body = response.json()
            value, lifetime = str(body["access_token"]), float(body["expires_in"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidResponseError("the response of /token has no access_token and expires_in") from error
        token = self._token = _Token(value, sent_at + lifetime - min(MAX_MARGIN_SECONDS, lifetime / 4))
        return token

    @staticmethod
    def _error(response: httpx.Response) -> ResponseError:
        is_refusal = response.status_code in {400, 401}
        return AuthenticationError(response) if is_refusal else error_of(response)
