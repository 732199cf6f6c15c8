"""The database for the code of plugins outside routes: commands, health checks, backends and deletion handlers.

Routes use the connection of their guard (`ctms.api.blueprint`): another transaction would be committed before the
caller is authorized.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import has_app_context, has_request_context

from ctms.api.blueprint import permission_of
from ctms.current import current_app, current_request
from ctms.database import pool
from ctms.database.pool import Connection


@contextmanager
def reading() -> Iterator[Connection]:
    """Yield a connection on which every statement is a separate transaction.

    For commands, health checks, backends and deletion handlers. Raises `RuntimeError` elsewhere; in a view, use
    `fetch_scalar` or `connection`.
    """
    _refuse_elsewhere("reading")
    with pool.reading() as connection:
        yield connection


@contextmanager
def writing() -> Iterator[Connection]:
    """Yield a connection for one transaction: committed at the end, rolled back by an exception.

    Statements are sent together, and their results arrive when something is fetched. For commands, health checks,
    backends and deletion handlers. Raises `RuntimeError` elsewhere; in a view, use `connection`.

    It is for the plugin's own tables. A change of the tables of CTMS by SQL reaches no backend, leaves
    `update_timestamp` as it was and brings back who is suppressed. Change contacts with the API, or with commands such
    as `flask ctms delete-bulk`.
    """
    _refuse_elsewhere("writing")
    with pool.writing() as connection:
        yield connection


def _refuse_elsewhere(name: str) -> None:
    if not has_app_context():
        raise RuntimeError(
            f"{name}() needs the app: use it in commands, health checks, backends and deletion handlers, not while the"
            " service starts and not in a thread of your own"
        )
    if has_request_context() and _is_guarded():
        raise RuntimeError(f"{name}() is not for requests: a view has connection(), and waitlist rules do no I/O")


def _is_guarded() -> bool:
    """Return whether a guard protects the current route, also while functions before and after its view run."""
    request = current_request()
    view = current_app().view_functions.get(request.endpoint or "")
    method = "GET" if request.method == "HEAD" else request.method
    return view is not None and permission_of(view, method) is not ...
