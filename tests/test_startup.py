"""The start and the exit of processes that start often."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

APP = "from ctms.app import create_app; create_app()"
GARBAGE = """
class Garbage:
    def __init__(self):
        self.own = self

    def __del__(self):
        print("looked for garbage")

Garbage()
"""


def run(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CTMS_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize("package", ["alembic", "flask_migrate", "requests", "rich", "sentry_sdk"])
def test_the_app_does_without_what_only_some_need(package: str) -> None:
    assert run(f"import sys; {APP}; print({package!r} in sys.modules)") == "False\n"


def test_the_exit_does_not_look_for_garbage() -> None:
    assert run(GARBAGE) == "looked for garbage\n"
    assert run(f"from ctms.startup import quick_imports\nwith quick_imports(): pass\n{GARBAGE}") == ""
