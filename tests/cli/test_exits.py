"""Errors for operators end a command with one line and an exit status; what raises them knows no click."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner

from ctms.cli.group import AppOwner, Group
from ctms.errors import (
    ConflictError,
    ListError,
    NotFoundError,
    OperatorError,
    PluginError,
    SettingsError,
    UnfinishedError,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", [Group, AppOwner])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OperatorError("do this"), 1),
        (SettingsError("do this"), 1),
        (PluginError("do this", "one", "another"), 1),
        (ListError("do this"), 2),
        (UnfinishedError("do this"), 3),
        (NotFoundError("do this"), 4),
        (ConflictError("do this"), 10),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_command_ends_with_one_line_and_the_status_of_its_error(
    kind: type[AppOwner], error: OperatorError, status: int
) -> None:
    def fail() -> None:
        raise error from psycopg.OperationalError("of the database")  # which has no say in it

    inner = click.Group("inner", commands=[click.Command("fail", callback=fail)])

    result = CliRunner().invoke(kind("outer", commands=[inner]), ["inner", "fail"])

    assert (result.exit_code, result.stdout, result.stderr) == (status, "", "Error: do this\n")


@pytest.mark.parametrize("command", ["ctms permissions list", "db current", "routes"])
def test_settings_that_cannot_be_used_are_one_line(command: str) -> None:
    environment = {**os.environ, "PORT": "none"}
    flask = [sys.executable, "-m", "flask", *command.split()]
    done = subprocess.run(flask, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: PORT ")
    assert done.stderr.count("\n") == 1


def test_errors_know_no_click() -> None:
    script = "import sys, ctms.errors; print('click' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
