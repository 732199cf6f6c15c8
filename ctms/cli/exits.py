"""Errors for operators as click knows them: one line on standard error, and an exit status."""

from __future__ import annotations

import click

from ctms.errors import OperatorError


def click_exception(error: OperatorError) -> click.ClickException:
    """Return the exception with which a command ends with the error's message and exit status."""
    found = click.ClickException(error.message)
    found.exit_code = error.exit_code  # type: ignore[misc]  # click reads it from the exception
    return found
