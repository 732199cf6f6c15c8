"""What is known of a request when it has been answered, told to whoever keeps account of it (logs, metrics)."""

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
"""What a method that we do not know is called."""

UNMATCHED = "unmatched"
"""The template of a path that no route has."""

_ADDRESS = re.compile(r"\S*(?:@|%40)\S*")
REQUEST_ID_LENGTH = 128
_REQUEST_ID = re.compile(rf"[-\w.]{{1,{REQUEST_ID_LENGTH}}}", re.ASCII)


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


class Answer(NamedTuple):
    """What was asked and answered: the same for many requests.

    `agent` is the client's name for itself, without any address in it. `client_id` is that of a verified token of this
    very request, whose client is known, else None; then `client_allowed` says whether it was let in. `method` is one of
    `METHODS` or `other`.
    """

    method: str
    path_template: str
    status: int
    agent: str
    client_id: str | None = None
    client_allowed: bool | None = None
    auth_fail: AuthFailure | None = None
    token_fail: TokenFailure | None = None


class Finished(NamedTuple):
    """An answered request; `at` is when, in seconds since 1970.

    `read` and `write` are the seconds that it waited for the database with a connection of that kind, None if it used
    none.
    """

    answer: Answer
    seconds: float
    request_id: str
    at: float
    read: float | None = None
    write: float | None = None


def note_client(client_id: str, failure: AuthFailure | None) -> None:
    """Note who sent the current request, known and with a good token, and why it was not let in, if so."""
    noted = current_g()
    noted.client_id, noted.client_allowed, noted.auth_fail = client_id, failure is None, failure


def note_auth_failure(failure: AuthFailure) -> None:
    """Note why the current request was refused, from someone whom nobody knows."""
    current_g().auth_fail = failure


def note_token_failure(failure: TokenFailure) -> None:
    """Note why the current request got no token."""
    current_g().token_fail = failure


def note_wait(kind: str, seconds: float) -> bool:
    """Note that the current request waited for the database; False when there is none."""
    waited: dict[str, float] | None = current_g().get("waited")
    if waited is None:
        return False
    waited[kind] = waited.get(kind, 0) + seconds
    return True


def anonymous_agent(agent: str) -> str:
    """Return the beginning of what a client calls itself, without any address in it, however it is spelt."""
    return _ADDRESS.sub("…", agent[:200]) if "@" in agent or "%" in agent else agent[:200]


def template(rule: str) -> str:
    """Return a Flask rule in the documented style, `/ctms/{email_id}`."""
    return re.sub(r"<(?:[^<>]*:)?(\w+)>", r"{\1}", rule)


@lru_cache(maxsize=1024)  # the number of clients is small, that of agents is up to whoever sends them
def _answer(method: str, rule: str | None, status: int, agent: str, *known: Any) -> Answer:
    return Answer(
        method if method in METHODS else OTHER,
        template(rule) if rule else UNMATCHED,
        status,
        anonymous_agent(agent),
        *known,
    )


def init_requests(app: Flask, tell: Callable[[Finished], None]) -> None:
    """Give every request an id (the caller's, if it sends a sound one) and tell when it is answered."""

    def start() -> None:
        noted = current_g()
        noted.started = time.perf_counter()
        # Of this very request: where requests are made inside an app's context, as in tests, they share it.
        noted.client_id = noted.client_allowed = noted.auth_fail = noted.token_fail = None
        noted.waited = {}
        given = current_request().environ.get("HTTP_X_REQUEST_ID")
        # An id is to be found in logs, not to be kept from guessing: it is worth no system call.
        noted.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"

    def finish(response: Response) -> Response:
        asked, noted = current_request(), current_g()
        response.headers["X-Request-Id"] = noted.request_id
        rule = asked.url_rule
        answer = _answer(
            asked.method,
            rule.rule if rule else None,
            response.status_code,
            asked.environ.get("HTTP_USER_AGENT", ""),
            noted.client_id,
            noted.client_allowed,
            noted.auth_fail,
            noted.token_fail,
        )
        waited, noted.waited = noted.waited.get, None
        tell(
            Finished(
                answer,
                time.perf_counter() - noted.started,
                noted.request_id,
                time.time(),
                waited("read"),
                waited("write"),
            )
        )
        return response

    app.before_request(start)
    app.after_request(finish)
