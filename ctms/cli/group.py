"""The group `ctms`: it brings its own app, and what an operator has to put right is one line, not a traceback."""

from __future__ import annotations

import click
import psycopg
from flask.cli import AppGroup, ScriptInfo
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from ctms.errors import OperatorError, PluginError

_NO_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn)
_NOT_ALLOWED = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)


class Group(AppGroup):
    """A group of commands that works in any folder."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, else one of a plugin's."""
        return super().get_command(ctx, cmd_name) or self._of_plugins(ctx).get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, those of plugins included; plugins that cannot be loaded are a remark, not an error."""
        try:
            of_plugins = self._of_plugins(ctx)
        except click.ClickException as error:
            click.echo(f"The commands of plugins are not listed: {error.message}", err=True)
            of_plugins = {}
        return sorted({*super().list_commands(ctx), *of_plugins})

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        info = self._app_info(ctx)
        commands: dict[str, click.Command] = {}
        for registered in info.load_app().extensions["ctms.plugins"].collect("ctms_commands"):
            name = registered.value.name
            if name in self.commands:
                raise PluginError(f"{registered.plugin.title}: the command {name!r} is ours: rename it")
            commands[name] = registered.value
        return commands

    def _app_info(self, ctx: click.Context) -> ScriptInfo:
        from ctms.app import create_app  # noqa: PLC0415  not needed for the help of a command

        info = ctx.ensure_object(ScriptInfo)
        if info.create_app is None:
            info.create_app = create_app
        return info

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. The app is made from the environment when the command needs it, unless there is one.

        Raises `OperatorError` for settings that cannot be used and for a database that cannot be reached, does not
        answer in time or is not migrated.
        """
        self._app_info(ctx)
        try:
            return super().invoke(ctx)
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            problem = database_problem(cause)
            if problem is None:
                raise
            raise OperatorError(problem) from error


def database_problem(error: BaseException | None) -> str | None:
    """Say in one line what an operator has to know about an error of the database; None: it is a fault of ours."""
    if isinstance(error, _NO_SCHEMA):
        return (
            "the database does not have the tables of this version: run `flask db upgrade` first"
            " (`flask ctms serve` does it for the embedded one)"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, _NOT_ALLOWED):
        return f"the database does not allow it: {reason}"
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "3D", "57P")):
            return f"the database cannot be reached: {reason}"
        return f"the database did not do it, try again: {reason}"
    return None
