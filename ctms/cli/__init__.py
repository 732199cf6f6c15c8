"""`flask ctms …`: what operators run. One file per group of commands."""

from __future__ import annotations

import click
from flask.cli import AppGroup, ScriptInfo

from ctms.cli.serve import serve


class Group(AppGroup):
    """The group `ctms`. It brings its own app, so it works in any folder."""

    def invoke(self, ctx: click.Context) -> object:
        """Make the app before the command runs; what is wrong with the settings is one line."""
        from ctms.app import create_app  # noqa: PLC0415  not needed for --help

        info = ctx.ensure_object(ScriptInfo)
        info.create_app = create_app
        return super().invoke(ctx)


@click.group("ctms", cls=Group)
def ctms() -> None:
    """Run and operate the contact service."""


ctms.add_command(serve)
