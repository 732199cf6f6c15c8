"""Groups of commands that bring their own app; what an operator has to put right is one line, not a traceback."""

from __future__ import annotations

import logging
from contextlib import nullcontext

import click
import psycopg
from flask import Flask, has_app_context
from flask.cli import AppGroup, ScriptInfo
from sqlalchemy.exc import DBAPIError

from ctms.current import current_app
from ctms.database.operator_errors import operator_errors
from ctms.database.plugin_failures import command_problem
from ctms.database.storage import disk_problem
from ctms.errors import OperatorError, PluginError
from ctms.hooks.manager import Plugins
from ctms.settings import app_settings

logger = logging.getLogger(__name__)


class AppOwner(AppGroup):
    """A group of commands that works in any folder."""

    def app_info(self, ctx: click.Context) -> ScriptInfo:
        """Return what makes the app, from the environment unless the caller has said otherwise."""
        info = ctx.ensure_object(ScriptInfo)
        if info.create_app is None:
            info.create_app = self.create_app
        return info

    def create_app(self) -> Flask:
        """Make the app."""
        from ctms.app import create_app  # noqa: PLC0415  not needed for the help of a command

        return create_app()

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. The app is made from the environment when the command needs it, unless there is one.

        Raises `OperatorError` for settings that cannot be used and for a database that cannot be reached, does not
        answer in time or is not migrated, and where the disk has no space left or is read-only.
        """
        self.app_info(ctx)
        try:
            return super().invoke(ctx)
        except OSError as error:
            problem = disk_problem(error)
            if problem is None:
                raise
            raise OperatorError(problem) from error
        except (DBAPIError, psycopg.Error) as error:
            with nullcontext() if has_app_context() else self.app_info(ctx).load_app().app_context():
                self.explain(ctx, error)
            raise

    def explain(self, _ctx: click.Context, error: DBAPIError | psycopg.Error) -> None:
        """Raise `OperatorError` in place of an error of the database that an operator can put right."""
        with operator_errors():
            raise error


class Group(AppOwner):
    """The group `ctms`, which has the commands of plugins, too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command of ours, else one of a plugin's."""
        return super().get_command(ctx, cmd_name) or self._of_plugins(ctx).get(cmd_name)

    def explain(self, ctx: click.Context, error: DBAPIError | psycopg.Error) -> None:
        """Raise `PluginError` for any error of the database that a plugin's command raised: its text may hold values.

        The traceback is logged where the settings want plugins traced.
        """
        name = ctx.invoked_subcommand
        app = current_app()
        if name is not None and name not in self.commands:
            for one in app.extensions["ctms.plugins"].collect("ctms_commands"):
                if one.value.name == name:
                    if app_settings().plugins_trace:
                        extra = {"plugin": one.plugin.name}
                        logger.info(
                            "command %s of plugin %s failed", name, one.plugin.name, exc_info=error, extra=extra
                        )
                    # `from None`: nothing may show the message of the error.
                    raise PluginError(command_problem(one.plugin, name, error), one.plugin.name) from None
        super().explain(ctx, error)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, those of plugins included; plugins that cannot be loaded are a remark, not an error."""
        try:
            of_plugins = self._of_plugins(ctx)
        except click.ClickException as error:
            click.echo(f"The commands of plugins are not listed: {error.message}", err=True)
            of_plugins = {}
        return sorted({*super().list_commands(ctx), *of_plugins})

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        return self.commands_of(self.app_info(ctx).load_app().extensions["ctms.plugins"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to run. One of a plugin's has the app, as ours have."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name not in self.commands and not has_app_context():
            ctx.with_resource(self.app_info(ctx).load_app().app_context())
        return name, command, rest

    def commands_of(self, plugins: Plugins) -> dict[str, click.Command]:
        """Return the commands of plugins by name. Raises `PluginError` where a name is one of ours."""
        commands: dict[str, click.Command] = {}
        for one in plugins.collect("ctms_commands"):
            name = one.value.name
            if name in self.commands:
                raise PluginError(
                    f"{one.plugin.title}: ctms_commands yields {name!r}, a command that the service has: rename it",
                    one.plugin.name,
                )
            commands[name] = one.value
        return commands

    def create_app(self) -> Flask:
        """Make the app. Raises `PluginError`, also where a plugin's command is called like one of ours."""
        app = super().create_app()
        self.commands_of(app.extensions["ctms.plugins"])
        return app
