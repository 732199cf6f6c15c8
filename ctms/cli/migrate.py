"""`flask db …`: Flask-Migrate's commands, for the tables of CTMS and of plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from flask import g
from flask.cli import with_appcontext

from ctms.startup import quick_imports

with quick_imports():
    import flask_migrate
    from flask_migrate.cli import db as commands

    from ctms.cli.group import AppOwner
    from ctms.database import migrations
    from ctms.database.alembic_config import chosen, init_flask_migrate
    from ctms.errors import NotFoundError, OperatorError

_NEWEST = ("head", "heads")
_WRITING = ("revision", "migrate", "merge", "edit")


@click.group("db", cls=AppOwner)
@click.option("--plugin", metavar="NAME", help="Work on the migrations of the plugin NAME, which must be on.")
@click.option("-x", "--x-arg", multiple=True, metavar="TEXT", help="Argument for env.py.")
@with_appcontext
@click.pass_context
def db(ctx: click.Context, plugin: str | None, x_arg: tuple[str, ...]) -> None:
    """Migrate the database: the tables of CTMS and of plugins.

    `upgrade`, `current` and `check` include enabled plugins. The other commands work on the tables of CTMS; with
    --plugin, all commands work on those of one plugin.
    """
    init_flask_migrate()
    g.directory, g.x_arg = None, x_arg  # as Flask-Migrate's own group
    ctx.obj.data["plugin"] = plugin
    if plugin is None:
        return
    there = migrations.plugin_schemas().migrations
    if plugin not in there:
        names = ", ".join(there) or "none"
        raise NotFoundError(f"no enabled plugin {plugin} has migrations; plugins with migrations: {names}")
    ctx.with_resource(chosen(there[plugin]))


def _extended(command: click.Command) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that replaces a command by a function that takes the same arguments."""

    def decorate(function: Callable[..., None]) -> click.Command:
        made = click.Command(
            command.name, callback=with_appcontext(click.pass_context(function)), params=command.params
        )
        made.help = function.__doc__
        db.add_command(made)
        return made

    return decorate


for _command in commands.commands.values():
    db.add_command(_command)


def _refuse_installed_copy(command: click.Command) -> None:
    """Replace a command that writes a file by one that refuses to write where pip would remove the file again."""
    original = command.callback
    assert original is not None  # noqa: S101  groups have none

    def run(ctx: click.Context, **options: Any) -> None:
        name = ctx.obj.data["plugin"]
        one = None if name is None else migrations.plugin_schemas().migrations[name]
        if one is not None and one.is_installed_copy():
            raise OperatorError(
                f"the migrations of the plugin {name} are an installed copy, {one.folder}, where new files would be"
                " lost: run `pip install --editable .` in the folder of the package first"
            )
        original(**options)

    run.__doc__ = command.help
    _extended(command)(run)


for _name in _WRITING:
    _refuse_installed_copy(commands.commands[_name])


@_extended(commands.commands["upgrade"])
def upgrade(ctx: click.Context, revision: str, **options: Any) -> None:
    """Upgrade to the newest revisions, CTMS first, then plugins; store the permissions of plugins.

    Print what was done for each. Tables of a newer version that are compatible with this one stay as they are. With a
    REVISION, or with --sql, plugins are not upgraded.
    """
    one = ctx.obj.data["plugin"]
    whole = revision in _NEWEST and not options["sql"]
    if one is not None and whole:
        migrations.upgrade_plugins([one], click.echo)
        return
    if whole:
        migrations.upgrade(click.echo, revision=revision, **options)
    else:
        flask_migrate.upgrade(revision=revision, **options)


@_extended(commands.commands["current"])
def current(ctx: click.Context, **options: Any) -> None:
    """Show the revision of the tables of CTMS, then those of plugins, including uninstalled ones."""
    if ctx.obj.data["plugin"] is not None:
        flask_migrate.current(**options)
        return
    newer = migrations.newer_tables()
    if newer is None:
        flask_migrate.current(**options)
    else:
        state = "compatible" if newer.is_compatible(migrations.head()) else "not compatible"
        click.echo(f"{newer.revision} (of a newer version, {state} with this one)")
    there = migrations.plugin_schemas().migrations
    with migrations.rolled_back_connection() as connection:
        found = migrations.revisions_of_plugins(connection)
    for name in sorted({*there, *found}):
        revision = found.get(name)
        if name not in there:
            state = f"not in use: `flask ctms plugins purge {name}` removes its tables"
        else:
            state = "head" if revision == there[name].head else "not the head"
        click.echo(f"plugin {name}: {revision or 'none'} ({state})")


@_extended(commands.commands["check"])
def check(ctx: click.Context, **options: Any) -> None:
    """Check that no upgrade is due for CTMS and plugins, and that the models of CTMS match the tables."""
    one = ctx.obj.data["plugin"]
    if one is None and migrations.newer_tables() is not None:
        for warning in migrations.check_migrated():
            click.echo(f"No upgrade is due: {warning}.")
        return
    # Alembic prints that all is well, so plugins are checked first; what they need exists once CTMS itself is migrated.
    is_newest = one is not None or migrations.current_revision() == migrations.head()
    problem = migrations.problem_of_plugins(one) if is_newest else None
    if problem is not None:
        raise OperatorError(problem)
    if one is None:
        flask_migrate.check(**options)
    else:
        click.echo("No upgrade is due.")
