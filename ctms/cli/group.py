"""Groups of commands that create the app; problems that an operator can fix are reported in one line."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from pkgutil import resolve_name
from typing import Any

import click
from flask import Flask, has_app_context
from flask.cli import AppGroup, ScriptInfo

from ctms.cli.exits import click_exception
from ctms.current import current_app
from ctms.database.errors import database_error_in
from ctms.database.plugin_failures import command_problem
from ctms.database.storage import disk_problem
from ctms.errors import OperatorError, PluginError
from ctms.hooks.manager import Plugins
from ctms.hooks.plugin import Plugin
from ctms.settings import app_settings
from ctms.startup import quick_imports

logger = logging.getLogger(__name__)


class AppOwner(AppGroup):
    """A group of commands that works in any folder."""

    def app_info(self, ctx: click.Context) -> ScriptInfo:
        """Return the app's factory, which reads the environment unless the caller has provided one."""
        info = ctx.ensure_object(ScriptInfo)
        if info.create_app is None:
            info.create_app = self.create_app
        return info

    def create_app(self) -> Flask:
        """Create the app."""
        with quick_imports():
            from ctms.app import create_app  # noqa: PLC0415  not needed for the help of a command

            return create_app()

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; end it with one line and an exit status for any `OperatorError`."""
        try:
            return self.run(ctx)
        except OperatorError as error:
            raise click_exception(error) from error

    def run(self, ctx: click.Context) -> object:
        """Run a command. The app is created from the environment if the command needs it and none exists.

        Raises `OperatorError` for invalid settings, for all database errors, whose own messages may repeat values of
        rows, and if the disk is full or read-only.
        """
        self.app_info(ctx)
        try:
            return super().invoke(ctx)
        except (OperatorError, click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            problem = disk_problem(error) if isinstance(error, OSError) else None
            if problem is not None:
                raise OperatorError(problem) from error
            if database_error_in(error) is None:
                raise
            # `from None`: nothing may show the error's message.
            raise self._explanation(ctx, error) from None

    def _explanation(self, ctx: click.Context, error: Exception) -> OperatorError:
        """Return a database error in one line; log the traceback at the level DEBUG, or that of a traced plugin."""
        name = ctx.invoked_subcommand or ""
        with nullcontext() if has_app_context() else self.app_info(ctx).load_app().app_context():
            plugin = self.plugin_of(name)
            problem = command_problem(plugin, name, error)
            if plugin is None:
                logger.debug("command %s failed", name, exc_info=error)
                return OperatorError(problem)
            if app_settings().plugins_trace:
                extra = {"plugin": plugin.name}
                logger.info("command %s of plugin %s failed", name, plugin.name, exc_info=error, extra=extra)
            return PluginError(problem, plugin.name)

    def plugin_of(self, _command: str) -> Plugin | None:
        """Return the plugin that a command in the current app belongs to, or None for a built-in one."""
        return None


class Group(AppOwner):
    """The group `ctms`, which includes the commands of plugins.

    `built_in` are its own commands, `module:attribute` by name. A command is imported when it is needed: most of them
    are not, in a process that runs or serves one.
    """

    def __init__(self, *arguments: Any, built_in: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._references = built_in or {}

    def built_in(self) -> dict[str, click.Command]:
        """Return the group's own commands by name, all imported."""
        return {name: self._import(name) for name in self._references}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a built-in command, else a plugin's."""
        if cmd_name in self._references:
            return self._import(cmd_name)
        return super().get_command(ctx, cmd_name) or self._of_plugins(ctx).get(cmd_name)

    def _import(self, name: str) -> click.Command:
        with quick_imports():
            command: click.Command = resolve_name(self._references[name])
        return command

    def _is_built_in(self, name: str) -> bool:
        return name in self._references or name in self.commands

    def plugin_of(self, command: str) -> Plugin | None:
        """Return the plugin that a command in the current app belongs to, or None for a built-in one."""
        found = current_app().extensions["ctms.plugins"].collect("ctms_commands")
        of_plugins = {one.value.name: one.plugin for one in found}
        return None if self._is_built_in(command) else of_plugins.get(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands, including those of plugins; plugins that cannot be loaded are a remark, not an error."""
        try:
            of_plugins = self._of_plugins(ctx)
        except OperatorError as error:
            click.echo(f"The commands of plugins are not available: {error.message}", err=True)
            of_plugins = {}
        return sorted({*super().list_commands(ctx), *self._references, *of_plugins})

    def _of_plugins(self, ctx: click.Context) -> dict[str, click.Command]:
        return self.commands_of(self.app_info(ctx).load_app().extensions["ctms.plugins"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command to run. Like built-in commands, a plugin's runs in the app's context."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and not self._is_built_in(name) and not has_app_context():
            ctx.with_resource(self.app_info(ctx).load_app().app_context())
        return name, command, rest

    def commands_of(self, plugins: Plugins) -> dict[str, click.Command]:
        """Return the commands of plugins by name. Raises `PluginError` if a name is that of a built-in command."""
        commands: dict[str, click.Command] = {}
        for one in plugins.collect("ctms_commands"):
            name = one.value.name
            if self._is_built_in(name):
                raise PluginError(
                    f"{one.plugin.title}: ctms_commands yields {name!r}, a command that the service has: rename it",
                    one.plugin.name,
                )
            commands[name] = one.value
        return commands

    def create_app(self) -> Flask:
        """Create the app. Raises `PluginError`, also if a plugin's command has the name of a built-in one."""
        app = super().create_app()
        self.commands_of(app.extensions["ctms.plugins"])
        return app
