"""Every exception that CTMS raises on purpose.

`ApiError` and its children become HTTP answers (`ctms.api.responses` is the one place that does it);
`OperatorError` becomes one line on standard error and an exit status, for whoever starts or runs a command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click


class OperatorError(click.ClickException):
    """Something only an operator can put right: the message says what and how, in one line."""


class SettingsError(OperatorError):
    """A setting is missing or has a value that cannot be used."""


class PluginError(OperatorError):
    """A plugin cannot be used: the message names it, its package, the hook and the cure.

    `plugins` are the names of those that cannot be used as they are: two where they clash.
    """

    def __init__(self, message: str, *plugins: str) -> None:
        super().__init__(message)
        self.plugins = plugins


class ListError(OperatorError):
    """A file is not the list that a command reads (exit status 2)."""

    exit_code = 2


class UnfinishedError(OperatorError):
    """A command did a part of its work: it was stopped, could not do the rest, or found more to do (exit status 3)."""

    exit_code = 3


class NotFoundError(OperatorError):
    """A command names something that does not exist (exit status 4)."""

    exit_code = 4


class ConflictError(OperatorError):
    """A command would make what exists already, or break what depends on it (exit status 10)."""

    exit_code = 10


class LoggedError(RuntimeError):
    """An unexpected error that was logged where it happened, with whose it is: it is answered with 500."""


class ApiError(Exception):
    """A request that is answered with an error.

    `detail` is what the body's `detail` member holds; `extra` are further members of the body,
    `headers` further headers of the answer.
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
    """The request cannot be answered as it stands."""

    status = 400


class Unauthorized(ApiError):
    """No usable token came with the request (RFC 6750)."""

    status = 401

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(ApiError):
    """The caller is known and lacks a permission."""

    status = 403


class NotFound(ApiError):
    """There is no such contact."""

    status = 404


class Conflict(ApiError):
    """An identity is taken; `field` names it (`primary_email`, `fxa_id` …) where the database tells."""

    status = 409

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        if field:
            self.extra["field"] = field


class PreconditionFailed(ApiError):
    """`If-Match` names another state than the stored one (RFC 9110, 13.1.1)."""

    status = 412


class Invalid(ApiError):
    """The request's values do not validate: `detail` is a sentence or a list of problems."""

    status = 422


class TooManyRequests(ApiError):
    """The caller has to wait before it tries again."""

    status = 429


class Unavailable(ApiError):
    """The database does not answer in time, or the process is too busy; trying again later may work."""

    status = 503

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})
