"""The plugins of a test: those that it chooses, else the ones of the project under test."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ctms.hooks.manager import GROUP

_PACKAGE = "ctms"


class InMemoryEntryPoint(EntryPoint):
    """An entry point for a plugin that a test has created, instead of an installed one."""

    def __init__(self, name: str, plugin: object) -> None:
        super().__init__(name, f"{type(plugin).__module__}:{name}", GROUP)
        vars(self)["plugin"] = plugin

    def load(self) -> Any:
        """Return the plugin."""
        return vars(self)["plugin"]


def bundled() -> list[EntryPoint]:
    """Return the bundled plugins."""
    return list(_bundled_in(tuple(sys.path)))


def under_test(project: Path) -> list[EntryPoint]:
    """Return the plugins that a project's `pyproject.toml` declares, installed or not, or none without such a file.

    An installed one has its package and version, but is loaded from where Python finds it.
    """
    file = project / "pyproject.toml"
    if not file.is_file():
        return []
    installed = {(point.name, point.value): point for point in _installed()}
    return [installed.get((name, value), EntryPoint(name, value, GROUP)) for name, value in _declared(file.read_text())]


def points_of(chosen: Iterable[object]) -> list[EntryPoint]:
    """Return the entry points that a test has chosen: names of installed plugins, entry points, plugins themselves.

    A plugin itself is a module or another object with hook implementations; its name is the last part of its
    `__name__`, or that of its class, in lower case. Raises `LookupError` for a name that is not installed.
    """
    installed = {point.name: point for point in _installed()}
    points = []
    for one in chosen:
        if isinstance(one, EntryPoint):
            points.append(one)
        elif not isinstance(one, str):
            name = getattr(one, "__name__", type(one).__name__)
            points.append(InMemoryEntryPoint(name.rpartition(".")[2].lower(), one))
        elif one in installed:
            points.append(installed[one])
        else:
            raise LookupError(
                f"no installed package has a plugin {one!r}; the plugins are {', '.join(sorted(installed))}"
            )
    return points


def _installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of all installed plugins."""
    return _installed_in(tuple(sys.path))


@lru_cache
def _installed_in(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:  # noqa: ARG001  `sys.path`, which Python searches
    # Each test asks three times, and Python reads the metadata of every installed package each time.
    return tuple(entry_points(group=GROUP))


@lru_cache
def _bundled_in(path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # Python also reads and parses the metadata of a package for its name.
    return tuple(point for point in _installed_in(path) if point.dist and point.dist.name == _PACKAGE)


@lru_cache
def _declared(text: str) -> tuple[tuple[str, str], ...]:
    """Return the names and values of the plugins that a `pyproject.toml` with this text declares."""
    declared = tomllib.loads(text).get("project", {}).get("entry-points", {}).get(GROUP, {})
    return tuple(declared.items())
