"""The hooks. A plugin implements those it needs; each is called once per app, when the service starts.

All hooks are called in the same way, outside any transaction, plugin by plugin in the order of the plugins' names; the
result is iterated, validated and stored with the plugin's name. Every process creates its own app, so each hook is
called once in every worker process of `flask ctms serve`, and once for every other `flask` command that needs the app.
A hook that raises, returns an invalid value, or registers a name of another plugin prevents the start, with a message
that names the plugin, its package and a hint.

`docs/reference/hooks` has a page for each, with an example that the tests run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    import flask_smorest

    from ctms.hooks.receivers import Backend, DeletionHandler
    from ctms.hooks.registrations import HealthCheck, Migrations, Newsletter, Permission, Waitlist

PROJECT = "ctms"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method of a plugin as the implementation of the hook of that name."""


@hookspec
def ctms_waitlists(settings: Any) -> Iterable[Waitlist]:  # type: ignore[empty-body]
    """Declare rules for the `fields` of waitlists.

    The declarations are read at start. Their rules run in requests that write, inside the request's transaction, and
    may run any number of times for one subscription; they must not do I/O. A validation error is the client's (422);
    any other exception fails that request (500), and is logged with the plugin's name and counted.
    """


@hookspec
def ctms_newsletters(settings: Any) -> Iterable[Newsletter]:  # type: ignore[empty-body]
    """Declare newsletters: their slugs, titles, languages, and whether they take new subscriptions.

    The declarations are read at start; `GET /newsletters` lists them. With `CTMS_NEWSLETTERS=enforce`, requests that
    write refuse new subscriptions to newsletters that are not declared or not active.
    """


@hookspec
def ctms_backends(settings: Any) -> Iterable[Backend]:  # type: ignore[empty-body]
    """Declare other systems that contacts are synced to.

    The declarations are read at start. A backend's `push` runs in the background service, never in a request, and
    outside any transaction of the service; it may be called more than once with the same state. If it raises, the
    contact is pushed again later.
    """


@hookspec
def ctms_deletion_handlers(settings: Any) -> Iterable[DeletionHandler]:  # type: ignore[empty-body]
    """Declare handlers that erase people in other systems.

    The declarations are read at start. A handler's `erase` runs in the background service, never in a request, and
    outside any transaction of the service, after the deletion is committed; it may be called more than once for a
    contact, in any order. If it raises, the deletion stays, and the contact is erased again later.
    """


@hookspec
def ctms_blueprints(settings: Any) -> Iterable[flask_smorest.Blueprint]:  # type: ignore[empty-body]
    """Add routes, documented and guarded like those of the service.

    The blueprints are registered at start. A view runs once per request; one that writes runs inside the transaction
    that the guard commits. Every route must be guarded; a path that is taken prevents the start. An unexpected
    exception of a view fails that request (500).
    """


@hookspec
def ctms_commands(settings: Any) -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Add commands to `flask ctms`.

    The hook is called at start like the others; a command runs in a separate process, with the app and its database. A
    name that is taken stops every command that needs the app.
    """


@hookspec
def ctms_health_checks(settings: Any) -> Iterable[HealthCheck]:  # type: ignore[empty-body]
    """Declare checks for `/__heartbeat__`.

    The declarations are read at start. A check runs once per request of the heartbeat, outside any transaction, in a
    thread with a timeout, and is not started again while it hangs. A check that fails, raises or times out makes the
    heartbeat degraded (`warning`), never down: the service works without the checked system.
    """


@hookspec
def ctms_migrations(settings: Any) -> Iterable[Migrations]:  # type: ignore[empty-body]
    """Declare the Alembic migrations that create the plugin's tables.

    The declaration and the files are read at start. `flask db upgrade` runs new ones after the migrations of the
    service, and so does the start of `flask ctms serve` and `flask ctms worker` on the embedded database. One process
    migrates at a time, each migration in its own transaction. One that raises is rolled back and stops the upgrade.
    """


@hookspec
def ctms_permissions(settings: Any) -> Iterable[Permission]:  # type: ignore[empty-body]
    """Declare the permissions that the plugin's routes require.

    The declarations are read at start. `flask db upgrade` stores them, and so does a start on the embedded database. A
    permission of the service or of another plugin prevents the start.
    """


HOOKS = tuple(name for name in globals() if name.startswith("ctms_"))
"""The names of the hooks, in the order of this file."""
