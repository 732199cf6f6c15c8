"""Which requests are repeated, how often, and after which delay."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anyio
import httpx

REPEATABLE = "ctms_repeatable"
"""Extension of a request: whether it may be sent again although the first attempt may have taken effect."""

_IDEMPOTENT = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE"}
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TRANSIENT = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError)

Outcome = httpx.Response | httpx.TransportError


@dataclass(frozen=True, kw_only=True)
class Retries:
    """Limits of the retries of one request.

    A request is repeated after 429, and after 503 with `Retry-After`: the service has then changed nothing. It is also
    repeated after a connection that failed before it was sent. Only requests that have the same effect when they are
    repeated are repeated after 502, 503, 504, a timeout or a lost connection.

    The delay is that of `Retry-After`, otherwise it doubles from `backoff_seconds` to `max_backoff_seconds`, less a
    random part of up to a half. With a longer `Retry-After` than `max_retry_after_seconds` the error is raised at once.
    """

    max_attempts: int = 5
    backoff_seconds: float = 0.5
    max_backoff_seconds: float = 30
    max_retry_after_seconds: float = 120

    def delay(self, attempt: int, request: httpx.Request, outcome: Outcome) -> float | None:
        """Return the seconds to wait before the next attempt, None if there is none. The first `attempt` is 1."""
        if attempt >= self.max_attempts or not _may_repeat(request, outcome):
            return None
        backoff = min(self.max_backoff_seconds, self.backoff_seconds * 2.0 ** min(attempt - 1, 30))
        backoff *= random.uniform(0.5, 1)  # noqa: S311  no secret
        wanted = retry_after(outcome) if isinstance(outcome, httpx.Response) else None
        if wanted is None:
            return backoff
        # Clients that were refused together do not return together.
        return None if wanted > self.max_retry_after_seconds else wanted + min(backoff, 1 + wanted / 10)


def retry_after(response: httpx.Response) -> float | None:
    """Return the delay that the response asks for, in seconds. None if there is none, or it is invalid."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = _date(value)
    except ValueError:
        return None
    try:  # both dates are of the same clock, which may differ from ours
        now = _date(response.headers.get("Date", ""))
    except ValueError:
        now = datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(value: str) -> datetime:
    found = parsedate_to_datetime(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _may_repeat(request: httpx.Request, outcome: Outcome) -> bool:
    if not isinstance(request.stream, httpx.ByteStream):
        return False  # the body can be read only once
    if isinstance(outcome, httpx.Response):
        if outcome.status_code == 429 or (outcome.status_code == 503 and "Retry-After" in outcome.headers):
            return True
        return outcome.status_code in {502, 503, 504} and _is_repeatable(request)
    if isinstance(outcome, _NOT_SENT):
        return True
    return isinstance(outcome, _TRANSIENT) and _is_repeatable(request)


def _is_repeatable(request: httpx.Request) -> bool:
    if "If-Match" in request.headers:
        return False  # after an attempt that took effect, the tag no longer matches
    default = request.method in _IDEMPOTENT or "Idempotency-Key" in request.headers
    return bool(request.extensions.get(REPEATABLE, default))


class RetryTransport(httpx.BaseTransport):
    """A transport that repeats requests of another one. It reads each response completely."""

    def __init__(self, transport: httpx.BaseTransport, retries: Retries) -> None:
        self._transport = transport
        self._retries = retries

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in itertools.count(1):
            outcome = self._attempt(request)
            delay = self._retries.delay(attempt, request, outcome)
            if delay is None:
                break
            time.sleep(delay)
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        return outcome

    def _attempt(self, request: httpx.Request) -> Outcome:
        try:
            response = self._transport.handle_request(request)
            response.read()
        except httpx.TransportError as error:
            return error
        return response

    def close(self) -> None:
        self._transport.close()


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    """The asynchronous form of `RetryTransport`."""

    def __init__(self, transport: httpx.AsyncBaseTransport, retries: Retries) -> None:
        self._transport = transport
        self._retries = retries

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for attempt in itertools.count(1):
            outcome = await self._attempt(request)
            delay = self._retries.delay(attempt, request, outcome)
            if delay is None:
                break
            await anyio.sleep(delay)
        if isinstance(outcome, httpx.TransportError):
            raise outcome
        return outcome

    async def _attempt(self, request: httpx.Request) -> Outcome:
        try:
            response = await self._transport.handle_async_request(request)
            await response.aread()
        except httpx.TransportError as error:
            return error
        return response

    async def aclose(self) -> None:
        await self._transport.aclose()
