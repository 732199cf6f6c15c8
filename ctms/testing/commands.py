"""A runner for commands in tests."""

from __future__ import annotations

from click.testing import Result
from flask.testing import FlaskCliRunner

from ctms.cli import ctms


class CommandRunner(FlaskCliRunner):
    """Runs `flask …` commands inside the app."""

    def ctms(self, *arguments: str) -> Result:
        """Run `flask ctms` with these arguments; the result has `exit_code`, `stdout` and `stderr`."""
        return self.invoke(ctms, arguments)
