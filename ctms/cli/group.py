"""Groups of commands that bring their own app; what an operator has to put right is one line, not a traceback."""

from __future__ import annotations

import click
from flask import Flask, has_app_context
from flask.cli import AppGroup, ScriptInfo

from ctms.database import operator_errors
from ctms.errors import OperatorError, PluginError
from ctms.hooks.manager import Plugins
from ctms.storage import disk_problem


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
        with operator_errors():
            try:
                return super().invoke(ctx)
            except OSError as error:
                problem = disk_problem(error)
                if problem is None:
                    raise
                raise OperatorError(problem) from error


class Group(AppOwner):
    """The group `ctms`, which has the commands of plugins, too."""

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
