"""The hooks. A plugin implements those it needs; each is called once per app, when the service starts.

All of them are called the same way, outside any transaction: plugin by plugin, in the order of the plugins' names; what
a plugin returns is iterated, checked and kept with the plugin's name. Every process makes an app of its own, so each
hook is called once in every worker process of `flask ctms serve`, and once for every other `flask` command that needs
the app. A hook that raises, returns what it should not, or claims what another plugin claims stops the start, with a
message that names the plugin, its package and the cure.

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
    from ctms.hooks.registrations import HealthCheck, Migrations, Permission, Waitlist

PROJECT = "ctms"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method of a plugin as the implementation of the hook of that name."""


@hookspec
def ctms_waitlists(settings: Any) -> Iterable[Waitlist]:  # type: ignore[empty-body]
    """Declare the waitlists whose `fields` the plugin knows the rules of.

    The declarations are made at start. Their rules run in requests that write, inside the request's transaction, and
    may run any number of times for one subscription; they do no I/O. An error of the rules is the client's (422);
    anything else that they raise fails that one request (500), is logged with the plugin's name and counted.
    """


@hookspec
def ctms_backends(settings: Any) -> Iterable[Backend]:  # type: ignore[empty-body]
    """Declare other systems that contacts are mirrored to.

    The declarations are made at start. A backend's `push` runs in the background service, never in a request, and
    outside any transaction of the service; it may be called more than once with one state. What it raises is no
    error of the client's: the contact is pushed again later.
    """


@hookspec
def ctms_deletion_handlers(settings: Any) -> Iterable[DeletionHandler]:  # type: ignore[empty-body]
    """Declare what must forget a person when the service does.

    The declarations are made at start. A handler's `erase` runs in the background service, never in a request, and
    outside any transaction of the service, after the deletion is committed; it may be called more than once for one
    contact, in any order. What it raises does not undo the deletion: the contact is erased again later.
    """


@hookspec
def ctms_blueprints(settings: Any) -> Iterable[flask_smorest.Blueprint]:  # type: ignore[empty-body]
    """Bring further routes, documented and guarded like those of the service.

    The blueprints are registered at start. A view runs in requests, once for each; one that writes runs inside the
    transaction that the guard commits. Every route must be guarded; a path that is taken stops the start. What a
    view raises unexpectedly fails that one request (500).
    """


@hookspec
def ctms_commands(settings: Any) -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Bring further commands, under `flask ctms`.

    The hook is called at start like the others; a command runs when it is typed, in a process of its own, with the
    app and its database. A name that is taken stops every command that needs the app.
    """


@hookspec
def ctms_health_checks(settings: Any) -> Iterable[HealthCheck]:  # type: ignore[empty-body]
    """Declare checks for `/__heartbeat__`.

    The declarations are made at start. A check runs once for each request that asks, outside any transaction, in a
    thread that is waited for until the check's time is up, and is not started again while it hangs. A check that
    fails, raises or takes too long makes the heartbeat degraded (`warning`), never down: the service works without
    what it looks at.
    """


@hookspec
def ctms_migrations(settings: Any) -> Iterable[Migrations]:  # type: ignore[empty-body]
    """Declare the Alembic migrations that create the plugin's tables.

    The declaration is made at start, and the files are read then. `flask db upgrade` runs those that are new after the
    migrations of the service, and so does the start of `flask ctms serve` and `flask ctms worker` on the embedded
    database. One process migrates at a time, each migration in a transaction of its own. One that raises is rolled
    back and stops the upgrade.
    """


@hookspec
def ctms_permissions(settings: Any) -> Iterable[Permission]:  # type: ignore[empty-body]
    """Declare the permissions that the plugin's routes ask for.

    The declarations are made at start. `flask db upgrade` stores them, and so does a start on the embedded database.
    One that the service or another plugin has stops the start.
    """


HOOKS = tuple(name for name in globals() if name.startswith("ctms_"))
"""The names of the hooks, in the order of this file."""
