"""What a process imports: the command that it runs, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import ctms as package
from ctms.cli import COMMANDS, ctms

SEEN = "print(*sorted(name for name in sys.modules if name.startswith('ctms.') or '.' not in name))"


def imported(statement: str) -> set[str]:
    """Return the modules in a process after a statement."""
    command = [sys.executable, "-c", f"import sys\n{statement}\n{SEEN}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_built_in_command_has_the_name_of_its_entry(name: str) -> None:
    command = ctms.get_command(click.Context(ctms), name)

    assert command is not None
    assert command.name == name


def test_a_command_does_not_import_the_others() -> None:
    found = imported("import ctms.cli; ctms.cli.ctms.get_command(None, 'roles')")

    assert "ctms.cli.roles" in found
    assert not {"ctms.cli.serve", "ctms.cli.worker", "ctms.cli.delete_bulk", "granian", "procrastinate"} & found


def test_a_serving_process_imports_no_commands() -> None:
    found = imported("import ctms.cli.serving_process")

    assert not {reference.partition(":")[0] for reference in COMMANDS.values()} & found
    assert not {"procrastinate", "rich"} & found


def test_the_app_imports_all_tables() -> None:
    folder = Path(package.__file__).parent
    models = [f"ctms.{path.parent.name}.models" for path in sorted(folder.glob("*/models.py"))]
    assert "ctms.retention.models" in models

    assert set(models) - imported("import ctms.app") == set()
