"""`flask ctms plugins`: lists, checks, creates and purges plugins.

These commands work even if the service cannot start.
"""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from typing import Any

import click

from ctms.app import create_app
from ctms.cli.audit import record
from ctms.cli.group import Group
from ctms.cli.output import (
    confirm,
    json_option,
    names,
    say,
    write_done,
    write_json,
    write_record,
    write_table,
    yes_option,
)
from ctms.cli.scaffold import new
from ctms.cli.settings import shown_settings
from ctms.database.engine import quick_connection, release_database
from ctms.database.migrations import PluginSchemas, revision_of
from ctms.database.operator_errors import operator_errors
from ctms.database.purge import Stored, purge, stored_by
from ctms.errors import ConflictError, NotFoundError, OperatorError, PluginError
from ctms.hooks.checks import log_traceback, name_of
from ctms.hooks.manager import GROUP, Plugins, disabled_reason, survey_plugins
from ctms.hooks.plugin import Plugin
from ctms.hooks.registrations import Migrations
from ctms.settings import Settings


@click.group()
def plugins() -> None:
    """List the plugins, check one, create a new one, remove the data of one.

    Works while a plugin prevents the service from starting.
    """


plugins.add_command(new)


@plugins.command("list")
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List all installed plugins with their hooks, and the reason if one is off or broken.

    `on`: loaded. `off`: disabled by the settings; it is not imported, so its hooks are unknown. `broken`: prevents the
    service from starting.
    """
    found = examine(Settings.from_environment(), _ours(ctx))
    for problem in found.problems:
        if not problem.plugins:
            say(problem.message)
    rows = [
        {
            "name": plugin.name,
            "package": plugin.package,
            "version": plugin.version,
            "hooks": list(plugin.hooks),
            **_state(found, plugin),
        }
        for plugin in found
    ]
    if as_json:
        write_json(rows)
        return
    columns = ("name", "package", "version", "hooks", "state", "why")
    write_table(columns, ([row[column] for column in columns] for row in rows))


@plugins.command()
@click.argument("name")
@json_option
@click.pass_context
def check(ctx: click.Context, name: str, as_json: bool) -> None:
    """Load the plugin NAME, even if it is off, and show its registrations and settings.

    If it has tables, also show their newest revision (head), that of the database, and what the database lacks or why
    it cannot be read. The embedded database is not started for this. Secrets are masked.

    Other enabled plugins are loaded with it, so that conflicts are found. Exits with 4 if there is no such plugin; with
    1, and the reason, if it cannot be used.
    """
    name = _installed_name(name)
    settings = Settings.from_environment()
    found = examine(_with(settings, name), _ours(ctx))
    plugin = found.get(name)
    if plugin is None:
        there = ", ".join(dict.fromkeys(other.name for other in found)) or "none"
        raise NotFoundError(f"there is no plugin {name}; the plugins are {there}")
    problem = found.problem_of(name)
    if problem is not None:
        raise OperatorError(problem)
    off = disabled_reason(name, settings)
    record = {
        "name": plugin.name,
        "package": plugin.package,
        "version": plugin.version,
        "state": "off" if off else "on",
        "why": off,
    }
    registered = [
        {"hook": hook, "name": _name(one.value), "description": _description(one.value)}
        for hook in plugin.hooks
        for one in found.collect(hook)
        if one.plugin.name == name
    ]
    revisions = _revisions(settings, found, name)
    declared = shown_settings(plugin.settings, plugin.declared_settings())
    if as_json:
        shown = {"hooks": list(plugin.hooks), "migrations": revisions, "registers": registered, "settings": declared}
        write_json({**record, **shown})
        return
    write_record({**record, "hooks": plugin.hooks, **(revisions or {})})
    for rows in (registered, declared):
        if rows:
            click.echo()
            write_table(tuple(rows[0]), (list(row.values()) for row in rows))


@plugins.command("purge")
@click.argument("name")
@yes_option
@json_option
def purge_(name: str, yes: bool, as_json: bool) -> None:
    """Remove all data of the plugin NAME: its tables, with all rows, and its permissions.

    The plugin must be uninstalled, or off (CTMS_PLUGINS_DISABLED): otherwise the next upgrade would create the tables
    again. Restart the service first. Asks for confirmation; without a terminal it requires --yes. Exits with 4 if the
    plugin has stored nothing, with 10 if it is on, or if anything outside its schema depends on it.
    """
    name = _installed_name(name)
    settings = Settings.from_environment()
    if disabled_reason(name, settings) is None and entry_points(group=GROUP, name=name):
        raise ConflictError(f"the plugin {name} is on: uninstall it or set CTMS_PLUGINS_DISABLED={name} first")
    app = create_app(dataclasses.replace(settings, plugins=(), plugins_disabled=()))
    try:
        with app.app_context(), operator_errors():
            confirm(f"{_loss(stored_by(name))}?", yes)
            found = purge(name, lambda connection: record(name, on=connection))
    finally:
        release_database(app)
    write_done(name, dataclasses.asdict(found), "purged", as_json)


def _loss(found: Stored) -> str:
    """Return a sentence that describes what a purge would remove."""
    parts = []
    if found.tables:
        parts.append(f"drop {names(found.tables)} with all rows")
    elif found.has_schema:
        parts.append("drop its schema, which has no tables")
    if found.permissions:
        given = sorted({role for roles in found.permissions.values() for role in roles})
        parts.append(f"delete the permissions {names(found.permissions)}" + (f" (of {names(given)})" if given else ""))
    return f"Purge the plugin {found.plugin}: {' and '.join(parts)}"


def examine(settings: Settings, commands: Group | None = None) -> Plugins:
    """Load the plugins and try to create an app with all usable ones: some problems are detected only then.

    `commands` are the built-in ones, whose names a plugin's may not have. `problems` of the result has all that were
    found.
    """
    found = survey_plugins(settings)
    sound = [
        plugin.name for plugin in found if plugin.disabled_reason is None and found.problem_of(plugin.name) is None
    ]
    known = list(found.problems)
    while True:
        try:
            app = create_app(dataclasses.replace(settings, plugins=tuple(sound), plugins_disabled=()))
            if commands is not None:
                commands.commands_of(app.extensions["ctms.plugins"])
        except PluginError as error:
            found.problems.append(error)
            remaining = [name for name in sound if name not in error.plugins]
            if remaining == sound:
                break
            sound = remaining
        else:
            break
    if settings.plugins_trace:  # now that there are logs; those of the app are logged
        for problem in known:
            log_traceback(problem)
    return found


def _installed_name(name: str) -> str:
    """Return the name of a plugin as in its entry point, where `-` is `_`, unless a plugin has the given name."""
    return name if entry_points(group=GROUP, name=name) else name.replace("-", "_")


def _with(settings: Settings, name: str) -> Settings:
    """Return the settings with the plugin enabled."""
    return dataclasses.replace(
        settings,
        plugins=None if settings.plugins is None else (*settings.plugins, name),
        plugins_disabled=tuple(other for other in settings.plugins_disabled if other != name),
    )


def _revisions(settings: Settings, found: Plugins, name: str) -> dict[str, str | None] | None:
    """Return the newest revision of the plugin's tables and that of the database, or None if it has no tables."""
    # An external server needs no wheel.
    from ctms.database.embedded import data_of  # noqa: PLC0415
    from ctms.database.postmaster import is_running  # noqa: PLC0415

    migrations, permissions = (
        [one for one in found.collect(hook) if one.plugin.name == name]
        for hook in ("ctms_migrations", "ctms_permissions")
    )
    schemas = PluginSchemas(migrations, permissions)
    if not migrations:
        return None
    shown: dict[str, str | None] = {"head": schemas.migrations[name].head, "revision": None, "problem": None}
    if settings.embedded and not is_running(data_of(settings.data_dir)):
        return {**shown, "problem": "the embedded database is not running"}
    app = create_app(dataclasses.replace(settings, plugins=(), plugins_disabled=()))
    try:
        with app.app_context(), operator_errors(), quick_connection() as connection:
            shown["revision"] = revision_of(connection, name)
            shown["problem"] = next(schemas.problems(connection), None)
    except OperatorError as error:
        shown["problem"] = error.message
    finally:
        release_database(app)
    return shown


def _ours(ctx: click.Context) -> Group | None:
    """Return the group of the built-in commands, in which this command was called."""
    above: click.Context | None = ctx
    while above is not None and not isinstance(above.command, Group):
        above = above.parent
    return above.command if above is not None and isinstance(above.command, Group) else None


def _state(found: Plugins, plugin: Plugin) -> dict[str, str | None]:
    problem = found.problem_of(plugin.name)
    if plugin.disabled_reason is not None:
        return {"state": "off", "why": plugin.disabled_reason}
    return {"state": "broken", "why": problem} if problem is not None else {"state": "on", "why": None}


def _name(value: Any) -> str:
    """Return the author's name for a registration."""
    return value.folder.name if isinstance(value, Migrations) else name_of(value)


def _description(value: Any) -> str | None:
    """Return the description of a registration, if any."""
    if isinstance(value, click.Command):
        return value.get_short_help_str(limit=100) or None
    if isinstance(value, Migrations):
        return str(value.folder)
    return getattr(value, "title", None) or getattr(value, "description", None) or None
