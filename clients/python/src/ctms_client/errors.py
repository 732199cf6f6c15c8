"""Exceptions of the client. Their texts contain no e-mail addresses, so they can be logged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import httpx

_ADDRESS = re.compile(r"[^\s\"'<>(),;:\[\]]+@[^\s\"'<>(),;:\[\]]+")


def redact(text: str) -> str:
    """Return the text with `<address>` in place of each e-mail address."""
    return _ADDRESS.sub("<address>", text)


class CtmsError(Exception):
    """Base class of all exceptions of the client."""


class TransportError(CtmsError):
    """A request without a response, after all retries. `__cause__` is the exception of `httpx`."""


class InvalidResponseError(CtmsError):
    """A response that is not one of CTMS, such as a page of a proxy."""


class ResponseError(CtmsError):
    """An error response. `body` is the error as the service sent it, and may contain personal data."""

    def __init__(self, response: httpx.Response) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.body: dict[str, Any] = _body(response)
        super().__init__(self._describe())

    @property
    def detail(self) -> str | list[dict[str, Any]] | None:
        """The message, or the list of validation errors: `loc`, `msg` and `type`."""
        detail: str | list[dict[str, Any]] | None = self.body.get("detail")
        return detail

    @property
    def request_id(self) -> str | None:
        """The id under which the service has logged the request."""
        return self.headers.get("X-Request-Id")

    def _describe(self) -> str:
        detail = self.detail
        if isinstance(detail, list):
            detail = "; ".join(_problem(one) for one in detail)
        text = f"{self.status}: {redact(detail) if detail else 'no details'}"
        return f"{text} (request {self.request_id})" if self.request_id else text


class InvalidRequestError(ResponseError):
    """400, 413 or 422: the request is invalid."""


class AuthenticationError(ResponseError):
    """401, or an error of `/token`: the client's id or secret is wrong, or the client is disabled."""


class ForbiddenError(ResponseError):
    """403: the client lacks the permission that `detail` names, or the address is suppressed."""


class NotFoundError(ResponseError):
    """404: there is no such contact."""

    @property
    def merged_into(self) -> str | None:
        """The id of the contact into which this one was merged, if it was."""
        return self.body.get("merged_into")


class ConflictError(ResponseError):
    """409: another contact has one of the identities."""

    @property
    def field(self) -> str | None:
        """The identity that is taken, if the service reports it."""
        return self.body.get("field")


class GoneError(ResponseError):
    """410: the position is too old, or deletions were not yet recorded then. List all contacts anew."""

    @property
    def recorded_since(self) -> str | None:
        """The earliest possible start."""
        return self.body.get("recorded_since")


class PreconditionFailedError(ResponseError):
    """412: the contact has changed since its `etag` was read."""


class TooManyRequestsError(ResponseError):
    """429, after all retries."""


class ServerError(ResponseError):
    """5xx, after all retries."""


_BY_STATUS: Mapping[int, type[ResponseError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    410: GoneError,
    412: PreconditionFailedError,
    413: InvalidRequestError,
    422: InvalidRequestError,
    429: TooManyRequestsError,
}


def error_of(response: httpx.Response) -> ResponseError:
    """Return the exception for an error response."""
    default = ServerError if response.status_code >= 500 else ResponseError
    return _BY_STATUS.get(response.status_code, default)(response)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:  # not JSON, such as a page of a proxy
        return {}
    return body if isinstance(body, dict) else {}


def _problem(problem: Mapping[str, Any]) -> str:
    place = ".".join(map(str, problem.get("loc", ())))
    return f"{place}: {problem.get('msg')} ({problem.get('type')})"
