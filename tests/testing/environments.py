"""Throw-away virtual environments on top of the one that runs the tests: what is installed there is only there."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path

from tests.serving import environment_for

_SCRIPT = """\
#!{python}
import sys

from {module} import {function}

if __name__ == "__main__":  # the processes that serve import it again
    sys.exit({function}())
"""
_COMMANDS = {
    "flask": ("flask.cli", "main"),
    "pip": ("pip._internal.cli.main", "main"),
    "pytest": ("pytest", "main"),
}


class Environment:
    """A virtual environment with CTMS, flask, pip and pytest, and whatever a test installs."""

    def __init__(self, folder: Path) -> None:
        """Make it in `folder`, which does not exist yet."""
        venv.create(folder, symlinks=True)
        self.commands = folder / "bin"
        self.python = self.commands / "python"
        below = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "below.pth").write_text(below)
        for name, (module, function) in _COMMANDS.items():
            script = self.commands / name
            script.write_text(_SCRIPT.format(python=self.python, module=module, function=function))
            script.chmod(0o755)

    def variables(self, data: Path) -> dict[str, str]:
        """Return the environment of somebody who has activated it; the embedded database is in `data`."""
        return {
            **environment_for(data),
            "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.commands.parent),
            # The tools that build packages are there already: nothing is downloaded. (pip reads it as the value of
            # the option, not of its negation.)
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # A run of pytest closes the folder of all runs to others; a server started by root is another.
            "PYTEST_DEBUG_TEMPROOT": str(data),
        }

    def run(
        self, *command: str, variables: Mapping[str, str], folder: Path, status: int = 0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in `folder` and hold it to its exit status."""
        done = subprocess.run(
            [self.commands / command[0], *command[1:]],
            env=dict(variables),
            cwd=folder,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        assert done.returncode == status, f"{command}: {done.stdout}\n{done.stderr}"
        return done
