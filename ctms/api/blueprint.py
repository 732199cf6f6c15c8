"""The blueprint of the API, with a decorator that authorizes the callers of a route and documents it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import flask_smorest
import psycopg
from flask import Response
from flask_smorest.utils import load_info_from_docstring
from psycopg.pq import PipelineStatus

from ctms.api.openapi import SECURITY_SCHEME
from ctms.api.openapi.errors import error_responses
from ctms.api.parsing import Parser
from ctms.clients.access import INVALID_CREDENTIALS, Caller
from ctms.clients.rate_limits import Quota, rate_limiter
from ctms.clients.refusals import AuthFailure
from ctms.clients.tokens import InvalidToken, tokens
from ctms.current import current_request
from ctms.database.pool import Connection, ScalarQuery, reading, writing
from ctms.errors import TooManyRequests, Unauthorized
from ctms.request_context import RequestContext, find_request_context, request_context

P = ParamSpec("P")
View = Callable[P, Response]
Decorated = TypeVar("Decorated", bound=Callable[..., Any])
AnyView = Callable[..., Response]


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """A flask-smorest blueprint with a parser for request bodies and a guard for routes."""

    ARGUMENTS_PARSER = Parser()

    if TYPE_CHECKING:  # flask-smorest has no types, and decorators without types are refused by strict checks

        def route(self, rule: str, **options: Any) -> Callable[[Decorated], Decorated]: ...

        def arguments(
            self, schema: Any, **options: Any
        ) -> Callable[[Callable[..., Response]], Callable[..., Response]]: ...

        def response(
            self, status_code: Any, schema: Any = None, **options: Any
        ) -> Callable[[Decorated], Decorated]: ...

    def guard(
        self, permission: str | None, *, reads: bool = False, stamps: bool = False
    ) -> Callable[[View[P]], View[P]]:
        """Require a valid token and the permission (None: any client) from the callers of a view.

        A view for `GET` reads, and so does one with `reads`. It uses `fetch_scalar()`: one statement authorizes the
        caller and runs the query. A view that writes uses `connection()`, in one transaction that the guard commits.
        The caller is authorized with the first result, so such a view may run for a caller that is then refused; the
        guard rolls back all its changes. `stamps` is for views of the service that change contacts through its writers
        only, which give each one a new `update_timestamp`.
        """

        def decorate(view: View[P]) -> View[P]:
            @wraps(view)
            def guarded(*args: P.args, **kwargs: P.kwargs) -> Response:
                client_id = _client_id()
                quota = _take(client_id)
                only_reads = reads or current_request().method in {"GET", "HEAD"}
                with reading() if only_reads else writing() as acquired:
                    caller = Caller(acquired, client_id, permission)
                    context = request_context()
                    context.connection, context.caller = acquired, caller
                    if not only_reads:
                        caller.look_up_writer(context.request_id, stamps=stamps)
                    try:
                        response = view(*args, **kwargs)
                    except psycopg.Error:  # the connection takes no more queries
                        raise
                    except Exception:
                        caller.authorize()  # an unauthorized caller must not see what is wrong with its request
                        raise
                    else:
                        caller.authorize()
                    finally:
                        _note(context, caller, quota)
                        context.connection = context.caller = None
                caller.touch_last_access()
                if quota is not None:
                    response.headers.update(quota.headers())
                return response

            guarded._ctms_permission = permission  # type: ignore[attr-defined]  # noqa: SLF001
            _document(guarded, permission)
            return guarded

        return decorate

    def operation(
        self,
        operation_id: str,
        *,
        errors: tuple[int, ...] = (),
        parameters: Sequence[str | dict[str, Any]] = (),
        has_page: bool = False,
        **words: Any,
    ) -> Callable[[View[P]], View[P]]:
        """Document a view: its operation id, for client generators, and the `errors` that it may return.

        `guard` adds its own errors, and every operation may return 500. The `parameters` are added to those of
        `arguments`. With `has_page`, the response may also be an HTML page. `words` are further members of OpenAPI's
        operation object. The view itself is not wrapped.
        """

        def decorate(view: View[P]) -> View[P]:
            operation = _operation(view)
            operation["operationId"] = operation_id
            described = view._apidoc.get("response", {}).get("responses", {})  # type: ignore[attr-defined]  # noqa: SLF001
            fault = () if 500 in described else (500,)
            operation["responses"].update(error_responses((*errors, *fault)))
            if has_page:
                operation["responses"][200] = {"content": {"text/html": {"schema": {"type": "string"}}}}
            operation.update(words)
            if parameters:  # in the manual documentation they would replace those of `arguments`
                view._apidoc.setdefault("arguments", {}).setdefault("parameters", []).extend(parameters)  # type: ignore[attr-defined]  # noqa: SLF001
            return view

        return decorate


def permission_of(view: Any, method: str) -> Any:
    """Return the permission that `guard` requires, None for any client, `...` for a view without a guard."""
    handler = getattr(view.view_class, method.lower(), None) if hasattr(view, "view_class") else view
    return getattr(handler, "_ctms_permission", ...)


def fetch_scalar(query: ScalarQuery) -> Any:
    """Authorize the caller of the guarded view, and return the value that the query selects, None for no row.

    Raises `RuntimeError` outside a guarded view.
    """
    return _caller("fetch_scalar").fetch_scalar(query)


def connection() -> Connection:
    """Return the connection of the current request, inside a guarded view.

    For a view that reads, authorize the caller first. Raises `RuntimeError` outside a guarded view.
    """
    caller = _caller("connection")
    acquired = request_context().connection
    assert acquired is not None  # noqa: S101  set with the caller
    if acquired.info.pipeline_status == PipelineStatus.OFF:
        caller.authorize()
    return acquired


def require_authorized() -> None:
    """Raise unless the caller is authorized; call it before work that is too expensive to roll back."""
    _caller("require_authorized").authorize()


def caller_id() -> str:
    """Return the id of the calling client, inside a guarded view.

    In a view that writes, the client may not be authorized yet; if it is refused, all changes are rolled back.
    """
    return _caller("caller_id").client_id


def _caller(name: str) -> Caller:
    context = find_request_context()
    if context is None or context.caller is None:
        raise RuntimeError(f"{name}() is for guarded views: elsewhere use reading() or writing()")
    return context.caller


def _take(client_id: str) -> Quota | None:
    """Spend a token of the client's rate limit, None if it is not known to have one. Raises `TooManyRequests`."""
    try:
        return rate_limiter().take(client_id)
    except TooManyRequests:
        request_context().client_id = client_id
        raise


def _note(context: RequestContext, caller: Caller, quota: Quota | None) -> None:
    """Record the caller for telemetry and its rate limit, if it is known by now."""
    if not caller.is_known:
        return
    rate_limiter().update(caller.client_id, caller.rate_limit, quota is not None)
    context.auth_failure = caller.refusal_cause
    if context.auth_failure is not AuthFailure.UNKNOWN_CLIENT:
        context.client_id, context.client_allowed = caller.client_id, context.auth_failure is None


def _client_id() -> str:
    scheme, _, token = current_request().environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        request_context().auth_failure = AuthFailure.NO_TOKEN
        raise Unauthorized("Not authenticated")
    try:
        return tokens().verify(token.strip())
    except InvalidToken as error:
        request_context().auth_failure = AuthFailure.EXPIRED_TOKEN if error.expired else AuthFailure.INVALID_TOKEN
        raise Unauthorized(INVALID_CREDENTIALS) from error


def _document(view: Any, permission: str | None) -> None:
    """Document the permission of the view and the errors for callers without it."""
    operation = _operation(view)
    operation["security"] = [{SECURITY_SCHEME: []}]
    if permission is None:
        operation["responses"].update(error_responses((400, 401, 429, 503)))
    else:
        operation["responses"].update(error_responses((400, 401, 403, 429, 503)))
        operation["x-permission"] = permission
        description = load_info_from_docstring(view.__doc__).get("description", "")
        operation["description"] = f"{description}\n\nNeeds the permission `{permission}`.".lstrip()


def _operation(view: Any) -> dict[str, Any]:
    """Return the view's manual documentation, for additions."""
    view._apidoc = deepcopy(getattr(view, "_apidoc", {}))  # noqa: SLF001
    operation: dict[str, Any] = view._apidoc.setdefault("manual_doc", {})  # noqa: SLF001
    operation.setdefault("responses", {})
    return operation
