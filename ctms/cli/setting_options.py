"""Command-line options for settings: each sets a setting's variable, before the settings are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ctms.environment import Setting, override
from ctms.errors import SettingsError
from ctms.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def setting_option(flag: str, field: str, metavar: str, meaning: str) -> Callable[[F], F]:
    """Add an option for a field of `Settings`, which overrides the variable and the file that it may name.

    The command does not take the value: it reads the settings. An invalid value is a usage error.
    """
    how = _declared(field)

    def take(_context: click.Context, _option: click.Parameter, text: str | None) -> None:
        if text is None:
            return
        if not text.strip():
            raise click.BadParameter("must not be empty")
        try:
            override(Settings, field, text)
        except SettingsError as error:
            raise click.BadParameter(error.message.removeprefix(f"{how.variable} ")) from error

    text = f"{meaning} Overrides {how.variable}."
    return click.option(flag, field, callback=take, expose_value=False, metavar=metavar, help=text)


def is_given(context: click.Context, field: str) -> bool:
    """Return whether the option for this field was given."""
    return context.get_parameter_source(field) is click.core.ParameterSource.COMMANDLINE


def _declared(field: str) -> Setting:
    return next(how for name, how, _ in Settings.declared() if name == field)
