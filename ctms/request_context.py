"""The context of the current request: its caller, connection, id and timings."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flask import has_app_context

from ctms.clients.access import Caller
from ctms.clients.refusals import AuthFailure, TokenFailure
from ctms.current import current_g
from ctms.database.pool import Connection


@dataclass(slots=True)
class RequestContext:
    """The context of a request while it is handled.

    `caller` and `connection` are set while its guarded view runs. `client_id` is the known client of its verified
    token, and `client_allowed` whether that client was authorized. `database_seconds` are its database times by kind of
    connection, None once they are recorded.
    """

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    caller: Caller | None = None
    connection: Connection | None = None
    client_id: str | None = None
    client_allowed: bool | None = None
    auth_failure: AuthFailure | None = None
    token_failure: TokenFailure | None = None
    database_seconds: dict[str, float] | None = field(default_factory=dict)


def start_request_context(request_id: str) -> None:
    """Start a new context for the current request. Requests inside one app context, as in tests, are sequential."""
    current_g().request_context = RequestContext(request_id)


def request_context() -> RequestContext:
    """Return the context of the current request. Raises `AttributeError` outside a request."""
    context: RequestContext = current_g().request_context
    return context


def find_request_context() -> RequestContext | None:
    """Return the context of the current request, or None outside a request."""
    return current_g().get("request_context") if has_app_context() else None
