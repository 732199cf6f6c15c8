"""Our blueprint: one decorator that guards a route and documents it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any, ParamSpec

import flask_smorest
from flask import Response, g, request

from ctms.api.parsing import Parser
from ctms.clients.access import INVALID, Caller
from ctms.clients.tokens import InvalidToken, tokens
from ctms.database import Connection, unit_of_work
from ctms.errors import Unauthorized

P = ParamSpec("P")
View = Callable[P, Response]

SECURITY: list[dict[str, list[str]]] = [{"OAuth2ClientCredentials": []}]


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """flask-smorest's blueprint with our parser and our guard."""

    ARGUMENTS_PARSER = Parser()

    def guard(self, permission: str | None) -> Callable[[View[P]], View[P]]:
        """Let only callers in whose token is good and who have the permission (None: any client).

        The view finds its connection at `connection()`. All that it does there is one transaction, which this
        decorator commits. Who the caller is and what it may do is asked in the same round trip as the view's first
        statement, so a view may have run for a caller who is then refused: neither its answer nor its writes
        leave this function.
        """

        def decorate(view: View[P]) -> View[P]:
            @wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> Response:
                client_id = _client_id()
                writes = request.method not in {"GET", "HEAD"}
                with unit_of_work(writes=writes) as g.connection:
                    caller = Caller(g.connection, client_id, permission)
                    try:
                        response = view(*args, **kwargs)
                    finally:
                        caller.require()
                    g.client_id = client_id
                caller.remember()
                return response

            guarded._ctms_permission = permission  # type: ignore[attr-defined]  # noqa: SLF001
            _document(guarded, permission)
            return guarded

        return decorate


def connection() -> Connection:
    """The connection of the current request, inside a guarded view."""
    current: Connection = g.connection
    return current


def _client_id() -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("Not authenticated")
    try:
        return tokens().verify(token.strip())
    except InvalidToken as error:
        raise Unauthorized(INVALID) from error


def _document(view: Any, permission: str | None) -> None:
    view._apidoc = deepcopy(getattr(view, "_apidoc", {}))  # noqa: SLF001
    manual = view._apidoc.setdefault("manual_doc", {})  # noqa: SLF001
    manual["security"] = SECURITY
    manual["x-permission"] = permission
