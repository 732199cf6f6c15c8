"""Which plugins a test loads: those that it names or hands over, else the ones of the project under test."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from ctms.hooks.manager import GROUP

_PACKAGE = "ctms"


class HandedOver(EntryPoint):
    """A plugin that a test made itself, in the place of one that is installed."""

    def __init__(self, name: str, plugin: object) -> None:
        super().__init__(name, f"{type(plugin).__module__}:{name}", GROUP)
        vars(self)["plugin"] = plugin

    def load(self) -> Any:
        """Return the plugin."""
        return vars(self)["plugin"]


def bundled() -> list[EntryPoint]:
    """Return the plugins that come with CTMS."""
    return [point for point in entry_points(group=GROUP) if point.dist and point.dist.name == _PACKAGE]


def under_test(project: Path) -> list[EntryPoint]:
    """Return the plugins that the `pyproject.toml` of a project declares, installed or not; none without such a file.

    One that is installed is known by its package and version, and loaded all the same from where Python finds it.
    """
    file = project / "pyproject.toml"
    if not file.is_file():
        return []
    declared = tomllib.loads(file.read_text()).get("project", {}).get("entry-points", {}).get(GROUP, {})
    installed = {(point.name, point.value): point for point in entry_points(group=GROUP)}
    return [installed.get((name, value), EntryPoint(name, value, GROUP)) for name, value in declared.items()]


def points_of(chosen: Iterable[object]) -> list[EntryPoint]:
    """Return the entry points of what a test chose: names of installed plugins, entry points, plugins themselves.

    A plugin itself is a module or another object with hook implementations; its name is the last part of its
    `__name__`, or that of its class, in lower case. Raises `LookupError` for a name that is not installed.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    points = []
    for one in chosen:
        if isinstance(one, EntryPoint):
            points.append(one)
        elif not isinstance(one, str):
            name = getattr(one, "__name__", type(one).__name__)
            points.append(HandedOver(name.rpartition(".")[2].lower(), one))
        elif one in installed:
            points.append(installed[one])
        else:
            raise LookupError(f"no installed package brings a plugin {one!r}; there are {', '.join(sorted(installed))}")
    return points
