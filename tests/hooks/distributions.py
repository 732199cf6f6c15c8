"""Real packages with plugins, built with the tools that a plugin's author uses, installed beside the project.

Nothing is installed into the environment that runs the tests: a wheel is unpacked into a folder of its own, as pip
does it, and the folder is put on the path.
"""

from __future__ import annotations

import importlib
import sys
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{package}"
version = "{version}"

[project.entry-points.ctms]
{points}

[tool.hatch.build.targets.wheel]
include = ["*.py"]
"""


def write_project(folder: Path, package: str, version: str, sources: Mapping[str, str], **points: str) -> None:
    """Write a package: `sources` by module; `points` are its entry points, by default each module by its name."""
    folder.mkdir(parents=True)
    named = points or {module: module for module in sources}
    lines = "\n".join(f'"{name}" = "{value}"' for name, value in named.items())
    (folder / "pyproject.toml").write_text(PROJECT.format(package=package, version=version, points=lines))
    for module, source in sources.items():
        (folder / f"{module}.py").write_text(source)


def install(project: Path, site: Path) -> None:
    """Build the wheel of a package and unpack it into a folder that is, or will be, on the path."""
    (wheel,) = WheelBuilder(str(project)).build(directory=str(project / "dist"), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)


class Site:
    """A folder on the path that packages are installed into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "site"
        self.folder.mkdir()
        self._projects = folder / "projects"
        self._count = 0

    def install(self, package: str, sources: Mapping[str, str], version: str = "1.2.3", **points: str) -> None:
        """Build a package and install it."""
        self._count += 1
        project = self._projects / str(self._count)
        write_project(project, package, version, sources, **points)
        install(project, self.folder)
        importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Where this test installs packages."""
    folder = tmp_path / "packages"
    folder.mkdir()
    made = Site(folder)
    monkeypatch.syspath_prepend(str(made.folder))
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(made.folder)):
            del sys.modules[name]
