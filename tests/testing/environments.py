"""Throw-away virtual environments: CTMS is installed from its wheel, and whatever a test installs is only there.

The packages that CTMS, its tests' extra and a build need are links to those of the environment that runs the tests:
nothing is downloaded, and pip finds them installed. What only our own tests need is not there. The wheel is built once
for a test run, and installed once: each environment is a copy.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.prepared import FOLDER_OF_RUN
from tests.serving import environment_for

ROOT = Path(__file__).parent.parent.parent

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
    """A virtual environment with CTMS as its wheel has it, flask, pip and pytest, and whatever a test installs."""

    def __init__(self, folder: Path) -> None:
        """Make it in `folder`, which does not exist yet."""
        installed = _installed()
        venv.create(folder, symlinks=True)
        self.commands = folder / "bin"
        self.python = self.commands / "python"
        shutil.copytree(installed, _packages(folder), symlinks=True, dirs_exist_ok=True)
        for name, (module, function) in _COMMANDS.items():
            script = self.commands / name
            script.write_text(_SCRIPT.format(python=self.python, module=module, function=function))
            script.chmod(0o755)

    def variables(self, data: Path) -> dict[str, str]:
        """Return the environment of a reader who has activated it; the embedded database is in `data`."""
        return {
            **environment_for(data),
            "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(self.commands.parent),
            # The tools that build packages are there already: nothing is downloaded. (pip reads it as the value of
            # the option, not of its negation.)
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INDEX": "1",
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


def _installed() -> Path:
    """Return the packages of an environment with the wheel of CTMS, created once per test run."""
    run = Path(os.environ[FOLDER_OF_RUN])
    with (run / "installed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        installed = run / "installed"
        if not installed.exists():
            draft = run / "installing"
            _install(draft)
            draft.rename(installed)
    return _packages(installed)


def _install(folder: Path) -> None:
    venv.create(folder, symlinks=True)
    packages = _packages(folder)
    for package in _packages_below():
        (packages / package.name).symlink_to(package)
    wheels = folder / "wheels"
    _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)])
    (wheel,) = wheels.glob("ctms-*.whl")
    options = ["--no-index", "--quiet", "--disable-pip-version-check"]
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", *options, f"{wheel}[testing]"])


def _packages_below() -> Iterator[Path]:
    """Yield the installed files and folders of the packages that a reader has, except CTMS."""
    for name in _needed("ctms[testing]", "editables", "hatchling", "pip") - {"ctms"}:
        found = distribution(name)
        for path in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            yield Path(str(found.locate_file(path)))


def _needed(*requirements: str) -> set[str]:
    """Return the names of packages and of all that they require here."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        for extra in {"", *one.extras}:
            key = canonicalize_name(one.name), extra
            if key not in found:
                found.add(key)
                required = map(Requirement, distribution(one.name).requires or ())
                waiting += [of for of in required if of.marker is None or of.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def _packages(environment: Path) -> Path:
    (found,) = environment.glob("lib/python*/site-packages")
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
