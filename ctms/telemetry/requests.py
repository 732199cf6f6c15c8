"""What is known of a request when it has been answered, told to whoever keeps account of it (logs, metrics)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import getrandbits

from flask import Flask, Response, g, request
from flask.globals import app_ctx, request_ctx

UNMATCHED = "unmatched"
"""The template of a path that no route has."""

_REQUEST_ID = re.compile(r"[-\w.]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Finished:
    """An answered request. `client_id` is that of a verified token of this very request, else None."""

    method: str
    path_template: str
    status: int
    seconds: float
    request_id: str
    client_id: str | None
    agent: str


@cache
def template(rule: str) -> str:
    """Return a Flask rule in the documented style, `/ctms/{email_id}`."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def init_requests(app: Flask, *observers: Callable[[Finished], None]) -> None:
    """Give every request an id (the caller's, if it sends a sound one) and tell the observers when it is answered."""

    def start() -> None:
        g.started = time.perf_counter()
        given = request.headers.get("X-Request-Id")
        # An id is to be found in logs, not to be kept from guessing: it is worth no system call.
        g.request_id = given if given and _REQUEST_ID.fullmatch(given) else f"{getrandbits(128):032x}"

    def finish(response: Response) -> Response:
        # The proxies `request` and `g` look the context up at every use; this runs for every request.
        current, noted = request_ctx.request, app_ctx.g
        response.headers["X-Request-Id"] = noted.request_id
        rule = current.url_rule
        finished = Finished(
            current.method,
            template(rule.rule) if rule else UNMATCHED,
            response.status_code,
            time.perf_counter() - noted.started,
            noted.request_id,
            noted.get("client_id"),
            current.headers.get("User-Agent", ""),
        )
        for observe in observers:
            observe(finished)
        return response

    app.before_request(start)
    app.after_request(finish)
