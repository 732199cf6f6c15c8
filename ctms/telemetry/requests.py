"""Per-request telemetry records, passed to the recorders for logs and metrics."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache
from random import getrandbits
from typing import Any, NamedTuple

from flask import Flask, Response

from ctms.clients.refusals import AuthFailure, TokenFailure
from ctms.current import current_request
from ctms.request_context import find_request_context, request_context, start_request_context

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""The label of an unknown method."""

UNMATCHED = "unmatched"
"""The path template of a path that matches no route."""

_ADDRESS = re.compile(r"\S*(?:@|%40)\S*")
_REQUEST_ID = re.compile(r"[-\w.]{1,128}", re.ASCII)
_MAX_AGENT_LENGTH = 200


class RequestLabels(NamedTuple):
    """The labels of an answered request, which many requests share.

    `method` is one of `METHODS` or `OTHER`. `agent` is the user agent without any address in it. `client_id` is the
    known client of a verified token of this request, else None; `client_allowed` says whether it was authorized,
    None if its rate limit refused the request before.
    """

    method: str
    path_template: str
    status: int
    agent: str
    client_id: str | None = None
    client_allowed: bool | None = None
    auth_failure: AuthFailure | None = None
    token_failure: TokenFailure | None = None

    @property
    def is_rate_limited(self) -> bool:
        """True if the request exceeded the rate limit of its client, which was not authorized then."""
        return self.status == 429 and self.client_id is not None and self.client_allowed is None


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


def note_wait(kind: str, seconds: float) -> bool:
    """Add to the current request's database time; return False outside a request."""
    context = find_request_context()
    if context is None or context.database_seconds is None:
        return False
    context.database_seconds[kind] = context.database_seconds.get(kind, 0) + seconds
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
        given = current_request().environ.get("HTTP_X_REQUEST_ID")
        # The id is searched for in logs and need not be unguessable: a system call would be a waste.
        start_request_context(given if given and _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}")

    def finish(response: Response) -> Response:
        request, context = current_request(), request_context()
        response.headers["X-Request-Id"] = context.request_id
        rule = request.url_rule
        labels = _labels(
            request.method,
            rule.rule if rule else None,
            response.status_code,
            request.environ.get("HTTP_USER_AGENT", ""),
            context.client_id,
            context.client_allowed,
            context.auth_failure,
            context.token_failure,
        )
        waited, context.database_seconds = context.database_seconds or {}, None
        seconds = time.perf_counter() - context.started
        record(RequestRecord(labels, seconds, context.request_id, time.time(), waited.get("read"), waited.get("write")))
        return response

    app.before_request(start)
    app.after_request(finish)
