"""Running `flask ctms …` in the process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from ctms.cli import ctms


def run(cli: CliRunner, *arguments: str, status: int = 0) -> Result:
    """Run a command and check its exit status; a failure has a one-line reason, the last line of standard error."""
    result = cli.invoke(ctms, arguments)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    if status:
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    if status not in {0, 2}:  # a usage error shows the usage first
        assert len(result.stderr.splitlines()) == 1
    return result


def run_json(cli: CliRunner, *arguments: str) -> Any:
    """Run a command with `--json` and return its output; standard error must be empty."""
    return json.loads(run(cli, *arguments, "--json").stdout)
