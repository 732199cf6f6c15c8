"""The hooks. A plugin implements those it needs; each is called once per app, when the service starts.

All of them are collected the same way: plugin by plugin, in the order of the plugins' names; what a plugin returns is
iterated, checked and kept with the plugin's name. Every process makes an app of its own, so each hook is called once
in every worker process of `flask ctms serve`, in `flask ctms worker`, and for every other `flask` command. A hook that
raises, returns what it should not, or claims what another plugin claims stops the start, with a message that names
the plugin, its package and the cure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click
    import flask_smorest

    from ctms.hooks.registrations import Backend, DeletionHandler, HealthCheck, Waitlist

PROJECT = "ctms"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function or method of a plugin as the implementation of the hook of that name."""


@hookspec
def ctms_waitlists(settings: Any) -> Iterable[Waitlist]:  # type: ignore[empty-body]
    """Declare the waitlists whose `fields` the plugin knows the rules of.

    The declarations are made at start, outside any transaction. Their rules run in requests that write, before the
    transaction begins to write, and may run any number of times for one subscription; they do no I/O. An error of
    the rules is the client's (422); anything else that they raise fails that one request (500), is logged with the
    plugin's name and counted.
    """


@hookspec
def ctms_backends(settings: Any) -> Iterable[Backend]:  # type: ignore[empty-body]
    """Declare other systems that contacts are mirrored to.

    The declarations are made at start. A backend's `push` is called by the background worker, never in a request,
    outside any transaction of the service, at least once for each state that it should have.
    """


@hookspec
def ctms_deletion_handlers(settings: Any) -> Iterable[DeletionHandler]:  # type: ignore[empty-body]
    """Declare what must forget a person when the service does.

    The declarations are made at start. A handler's `erase` is called by the background worker, never in a request,
    after the deletion is committed, at least once for each contact, in any order.
    """


@hookspec
def ctms_blueprints(settings: Any) -> Iterable[flask_smorest.Blueprint]:  # type: ignore[empty-body]
    """Bring further routes, documented and guarded like those of the service.

    The blueprints are registered at start. A view runs in requests; one that is guarded and writes runs inside the
    transaction that the guard commits. Every route must be guarded; a path that is taken stops the start.
    """


@hookspec
def ctms_commands(settings: Any) -> Iterable[click.Command]:  # type: ignore[empty-body]
    """Bring further commands, under `flask ctms`.

    The commands are added when `flask ctms` runs, in that process only. A name that is taken stops it.
    """


@hookspec
def ctms_health_checks(settings: Any) -> Iterable[HealthCheck]:  # type: ignore[empty-body]
    """Declare checks for `/__heartbeat__`.

    The declarations are made at start. A check runs in the request that asks, outside any transaction, in a thread
    that is given up after the check's time-out. A check that fails, raises or takes too long makes the heartbeat
    degraded (`warning`), never down: the service works without what it looks at.
    """


HOOKS = tuple(name for name in globals() if name.startswith("ctms_"))
"""The names of the hooks, in the order of this file."""
