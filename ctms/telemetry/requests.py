"""Per-request telemetry records, passed to the recorders for logs and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from random import getrandbits
from typing import Any, NamedTuple

from flask import Flask, Response

from ctms.current import current_g, current_request

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""The label of an unknown method."""

UNMATCHED = "unmatched"
"""The path template of a path that matches no route."""

_ADDRESS = re.compile(r"\S*(?:@|%40)\S*")
_REQUEST_ID = re.compile(r"[-\w.]{1,128}", re.ASCII)
_MAX_AGENT_LENGTH = 200


class AuthFailure(StrEnum):
    """The cause of a failed authentication or authorization."""

    NO_TOKEN = "no_token"  # noqa: S105
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    MISSING_PERMISSION = "missing_permission"


class TokenFailure(StrEnum):
    """The cause of a failed token request."""

    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    WRONG_SECRET = "wrong_secret"  # noqa: S105
    LIMITED = "limited"
    INVALID_REQUEST = "invalid_request"


class RequestLabels(NamedTuple):
    """The labels of an answered request, which many requests share.

    `method` is one of `METHODS` or `OTHER`. `agent` is the user agent without any address in it. `client_id` is the
    known client of a verified token of this request, else None; `client_allowed` says whether it was authorized.
    """

    method: str
    path_template: str
    status: int
    agent: str
    client_id: str | None = None
    client_allowed: bool | None = None
    auth_fail: AuthFailure | None = None
    token_fail: TokenFailure | None = None


class RequestRecord(NamedTuple):
    """The record of an answered request.

    `seconds` is its duration, `answered_at` the Unix time of its answer. `read_seconds` and `write_seconds` are its
    database times by kind of connection, None if it used none.
    """

    labels: RequestLabels
    seconds: float
    request_id: str
    answered_at: float
    read_seconds: float | None = None
    write_seconds: float | None = None


def note_client(client_id: str, failure: AuthFailure | None) -> None:
    """Record the known client of the current request's verified token, and why it was not authorized, if so."""
    context = current_g()
    context.client_id, context.client_allowed, context.auth_fail = client_id, failure is None, failure


def note_auth_failure(failure: AuthFailure) -> None:
    """Record why the current request was not authenticated."""
    current_g().auth_fail = failure


def note_token_failure(failure: TokenFailure) -> None:
    """Record why the current token request failed."""
    current_g().token_fail = failure


def note_wait(kind: str, seconds: float) -> bool:
    """Add to the current request's database time; return False outside a request."""
    waited: dict[str, float] | None = current_g().get("waited")
    if waited is None:
        return False
    waited[kind] = waited.get(kind, 0) + seconds
    return True


def anonymize_agent(agent: str) -> str:
    """Return the beginning of a user agent without any address in it, however the address is spelled."""
    agent = agent[:_MAX_AGENT_LENGTH]
    return _ADDRESS.sub("…", agent) if "@" in agent or "%" in agent else agent


def format_template(rule: str) -> str:
    """Return the path template of a Flask rule, as in `/ctms/{email_id}`."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule)


@lru_cache(maxsize=1024)  # few clients exist, but senders choose their user agents
def _labels(method: str, rule: str | None, status: int, agent: str, *context: Any) -> RequestLabels:
    return RequestLabels(
        method if method in METHODS else OTHER,
        format_template(rule) if rule else UNMATCHED,
        status,
        anonymize_agent(agent),
        *context,
    )


def init_requests(app: Flask, record: Callable[[RequestRecord], None]) -> None:
    """Give each request an id (the caller's, if valid), and call `record` when the request has been answered."""

    def start() -> None:
        context = current_g()
        context.started = time.perf_counter()
        # Reset: requests inside one app context, as in tests, share these attributes.
        context.client_id = context.client_allowed = context.auth_fail = context.token_fail = None
        context.waited = {}
        given = current_request().environ.get("HTTP_X_REQUEST_ID")
        # The id is searched for in logs and need not be unguessable: a system call would be a waste.
        context.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"

    def finish(response: Response) -> Response:
        request, context = current_request(), current_g()
        response.headers["X-Request-Id"] = context.request_id
        rule = request.url_rule
        labels = _labels(
            request.method,
            rule.rule if rule else None,
            response.status_code,
            request.environ.get("HTTP_USER_AGENT", ""),
            context.client_id,
            context.client_allowed,
            context.auth_fail,
            context.token_fail,
        )
        waited, context.waited = context.waited.get, None
        seconds = time.perf_counter() - context.started
        record(RequestRecord(labels, seconds, context.request_id, time.time(), waited("read"), waited("write")))
        return response

    app.before_request(start)
    app.after_request(finish)
