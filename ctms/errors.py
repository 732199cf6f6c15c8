"""All exceptions that CTMS raises on purpose.

`ApiError` and its subclasses become HTTP responses (only `ctms.api.responses` does this); `OperatorError` becomes a
one-line message on standard error and an exit status (only `ctms.cli.exits` does this).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class OperatorError(Exception):
    """A problem that an operator can fix: the message says what is wrong and what to do, in one line."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsError(OperatorError):
    """A setting is missing or invalid."""


class PluginError(OperatorError):
    """A plugin cannot be used: the message names it, its package, the hook and a hint.

    `plugins` are the names of those that cannot be used: two if they conflict.
    """

    def __init__(self, message: str, *plugins: str) -> None:
        super().__init__(message)
        self.plugins = plugins


class ListError(OperatorError):
    """A file is not the list that a command reads (exit status 2)."""

    exit_code = 2


class UnfinishedError(OperatorError):
    """A command did part of its work: it was interrupted, could not finish, or found problems (exit status 3)."""

    exit_code = 3


class NotFoundError(OperatorError):
    """A command names something that does not exist (exit status 4)."""

    exit_code = 4


class ConflictError(OperatorError):
    """A command would create what already exists, or break what depends on it (exit status 10)."""

    exit_code = 10


class LoggedError(RuntimeError):
    """An unexpected error that was already logged with its origin; the response is 500."""


class ApiError(Exception):
    """An error response to a request.

    `detail` is the body's member `detail`; `extra` are further members of the body, `headers` further headers of the
    response.
    """

    status = 500

    def __init__(
        self,
        detail: str | Sequence[dict[str, Any]],
        *,
        headers: dict[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(self.status)
        self.detail = detail
        self.headers = headers or {}
        self.extra = extra


class BadRequest(ApiError):
    """The request is malformed."""

    status = 400


class Unauthorized(ApiError):
    """The request has no valid token (RFC 6750)."""

    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """The caller lacks a permission."""

    status = 403


class NotFound(ApiError):
    """The contact does not exist."""

    status = 404


class Conflict(ApiError):
    """An identity is taken; `field` names it (`primary_email`, `fxa_id` …) if the database reports it."""

    status = 409

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        if field:
            self.extra["field"] = field


class Gone(ApiError):
    """What the request starts from is no longer recorded; the client must start anew."""

    status = 410


class PreconditionFailed(ApiError):
    """`If-Match` names another state than the stored one (RFC 9110, 13.1.1)."""

    status = 412


class Invalid(ApiError):
    """The request's values are invalid: `detail` is a sentence or a list of problems."""

    status = 422


class TooManyRequests(ApiError):
    """The caller must wait before it retries."""

    status = 429


class NotConfigured(ApiError):
    """The operator has not configured what the request needs."""

    status = 501


class Unavailable(ApiError):
    """The database does not respond in time, or the process is too busy; a retry may succeed."""

    status = 503

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})
