"""Our blueprint: one decorator that guards a route and documents it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import wraps
from typing import Any, ParamSpec

import flask_smorest
import psycopg
from flask import Response
from flask_smorest.utils import load_info_from_docstring
from psycopg.pq import PipelineStatus

from ctms.api.openapi import SECURITY_SCHEME
from ctms.api.openapi.errors import error_responses
from ctms.api.parsing import Parser
from ctms.clients.access import INVALID, Caller
from ctms.clients.tokens import InvalidToken, tokens
from ctms.current import current_g, current_request
from ctms.errors import Unauthorized
from ctms.pool import Connection, ScalarQuery, reading, writing
from ctms.telemetry.requests import AuthFailure, note_auth_failure, note_client

P = ParamSpec("P")
View = Callable[P, Response]


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """flask-smorest's blueprint with our parser and our guard."""

    ARGUMENTS_PARSER = Parser()

    def guard(self, permission: str | None) -> Callable[[View[P]], View[P]]:
        """Let only those callers in whose token is good and who have the permission (None: any client).

        A view that reads asks with `answer()`: one statement finds out who the caller is and, for who may have
        it, what was asked for. A view that writes works on `connection()`, in one transaction that is committed
        here; who the caller is comes with the first answer, so such a view may have run for a caller who is
        then refused, and all that it did is rolled back.
        """

        def decorate(view: View[P]) -> View[P]:
            @wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> Response:
                client_id = _client_id()
                reads = current_request().method in {"GET", "HEAD"}
                with reading() if reads else writing() as lent:
                    caller = Caller(lent, client_id, permission)
                    noted = current_g()
                    noted.connection, noted.caller = lent, caller
                    if not reads:
                        caller.look_up()
                    try:
                        response = view(*args, **kwargs)
                    except psycopg.Error:  # nothing more can be asked on this connection
                        raise
                    except Exception:
                        caller.require()  # who may not ask is not told what is wrong with the question
                        raise
                    else:
                        caller.require()
                    finally:
                        _note(caller)
                caller.remember()
                return response

            guarded._ctms_permission = permission  # type: ignore[attr-defined]  # noqa: SLF001
            _document(guarded, permission)
            return guarded

        return decorate

    def operation(
        self, operation_id: str, *, errors: tuple[int, ...] = (), **words: Any
    ) -> Callable[[View[P]], View[P]]:
        """Document a view: its name for client generators and with which `errors` it may answer.

        Those of `guard` are added there, and any operation may meet a fault (500). `words` are further members of
        OpenAPI's operation object. Nothing is wrapped around the view.
        """

        def decorate(view: View[P]) -> View[P]:
            operation = _operation(view)
            operation["operationId"] = operation_id
            described = view._apidoc.get("response", {}).get("responses", {})  # type: ignore[attr-defined]  # noqa: SLF001
            fault = () if 500 in described else (500,)
            operation["responses"].update(error_responses((*errors, *fault)))
            operation.update(words)
            return view

        return decorate


def permission_of(view: Any, method: str) -> Any:
    """Return the permission that `guard` asks for, None for any client, `...` where nothing guards the view."""
    handler = getattr(view.view_class, method.lower()) if hasattr(view, "view_class") else view
    return getattr(handler, "_ctms_permission", ...)


def answer(question: ScalarQuery) -> Any:
    """Return what the scalar query selects, None for no row; for the callers of the guarded view only."""
    return current_g().caller.answer(question)


def connection() -> Connection:
    """The connection of the current request, inside a guarded view.

    A view that reads gets it once the caller is known to be let in.
    """
    noted = current_g()
    lent: Connection = noted.connection
    if lent.info.pipeline_status == PipelineStatus.OFF:
        noted.caller.require()
    return lent


def let_in() -> None:
    """Raise unless the caller may have what it asks for: before what is too much to be done first and rolled back."""
    current_g().caller.require()


def caller_id() -> str:
    """The id of the client that calls, inside a guarded view.

    In one that writes it may not be known yet whether it is let in; who is not has done nothing in the end.
    """
    found: str = current_g().caller.client_id
    return found


def _note(caller: Caller) -> None:
    """Tell telemetry who the caller is, if that is known by now."""
    if not caller.known:
        return
    failure = AuthFailure(caller.refused_as) if caller.refused_as else None
    if failure is AuthFailure.UNKNOWN_CLIENT:
        note_auth_failure(failure)
    else:
        note_client(caller.client_id, failure)


def _client_id() -> str:
    scheme, _, token = current_request().environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        note_auth_failure(AuthFailure.NO_TOKEN)
        raise Unauthorized("Not authenticated")
    try:
        return tokens().verify(token.strip())
    except InvalidToken as error:
        note_auth_failure(AuthFailure.EXPIRED_TOKEN if error.expired else AuthFailure.INVALID_TOKEN)
        raise Unauthorized(INVALID) from error


def _document(view: Any, permission: str | None) -> None:
    """Say who may call the view and how it answers those who may not."""
    operation = _operation(view)
    operation["security"] = [{SECURITY_SCHEME: []}]
    if permission is None:
        operation["responses"].update(error_responses((400, 401, 503)))
    else:
        operation["responses"].update(error_responses((400, 401, 403, 503)))
        operation["x-permission"] = permission
        description = load_info_from_docstring(view.__doc__).get("description", "")
        operation["description"] = f"{description}\n\nNeeds the permission `{permission}`.".lstrip()


def _operation(view: Any) -> dict[str, Any]:
    """Return what is documented of the view by hand, to be added to."""
    view._apidoc = deepcopy(getattr(view, "_apidoc", {}))  # noqa: SLF001
    operation: dict[str, Any] = view._apidoc.setdefault("manual_doc", {})  # noqa: SLF001
    operation.setdefault("responses", {})
    return operation
