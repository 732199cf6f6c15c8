"""What is known of a request when it has been answered, told to whoever keeps account of it (logs, metrics)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import getrandbits

from flask import Flask, Response, g, request
from flask.globals import app_ctx, request_ctx

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""What a method that we do not know is called."""

UNMATCHED = "unmatched"
"""The template of a path that no route has."""

_REQUEST_ID = re.compile(r"[-\w.]{1,128}", re.ASCII)


class AuthFailure(StrEnum):
    """Why a guarded route did not let the caller in."""

    NO_TOKEN = "no_token"  # noqa: S105
    INVALID_TOKEN = "invalid_token"  # noqa: S105
    EXPIRED_TOKEN = "expired_token"  # noqa: S105
    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    MISSING_PERMISSION = "missing_permission"


class TokenFailure(StrEnum):
    """Why `/token` gave none."""

    UNKNOWN_CLIENT = "unknown_client"
    DISABLED_CLIENT = "disabled_client"
    WRONG_SECRET = "wrong_secret"  # noqa: S105
    LIMITED = "limited"
    INVALID_REQUEST = "invalid_request"


@dataclass(frozen=True, slots=True)
class Finished:
    """An answered request.

    `client_id` is that of a verified token of this very request, whose client is known, else None; then
    `client_allowed` says whether it was let in. `method` is one of `METHODS` or `other`.
    """

    method: str
    path_template: str
    status: int
    seconds: float
    request_id: str
    agent: str
    client_id: str | None = None
    client_allowed: bool | None = None
    auth_fail: AuthFailure | None = None
    token_fail: TokenFailure | None = None


def note_client(client_id: str, failure: AuthFailure | None) -> None:
    """Note who sent the current request, known and with a good token, and why it was not let in, if so."""
    noted = app_ctx.g
    noted.client_id, noted.client_allowed, noted.auth_fail = client_id, failure is None, failure


def note_auth_failure(failure: AuthFailure) -> None:
    """Note why the current request was refused, from someone whom nobody knows."""
    g.auth_fail = failure


def note_token_failure(failure: TokenFailure) -> None:
    """Note why the current request got no token."""
    g.token_fail = failure


@cache
def template(rule: str) -> str:
    """Return a Flask rule in the documented style, `/ctms/{email_id}`."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule)


def init_requests(app: Flask, *observers: Callable[[Finished], None]) -> None:
    """Give every request an id (the caller's, if it sends a sound one) and tell the observers when it is answered."""

    def start() -> None:
        noted = app_ctx.g
        noted.started = time.perf_counter()
        # Of this very request: where requests are made inside an app's context, as in tests, they share it.
        noted.client_id = noted.client_allowed = noted.auth_fail = noted.token_fail = None
        given = request.headers.get("X-Request-Id")
        # An id is to be found in logs, not to be kept from guessing: it is worth no system call.
        noted.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"

    def finish(response: Response) -> Response:
        # The proxies `request` and `g` look the context up at every use; this runs for every request.
        current, noted = request_ctx.request, app_ctx.g
        response.headers["X-Request-Id"] = noted.request_id
        rule = current.url_rule
        finished = Finished(
            current.method if current.method in METHODS else OTHER,
            template(rule.rule) if rule else UNMATCHED,
            response.status_code,
            time.perf_counter() - noted.started,
            noted.request_id,
            current.headers.get("User-Agent", ""),
            noted.client_id,
            noted.client_allowed,
            noted.auth_fail,
            noted.token_fail,
        )
        for observe in observers:
            observe(finished)
        return response

    app.before_request(start)
    app.after_request(finish)
