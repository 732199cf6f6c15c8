"""Plugins, and their registrations together with the plugin's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ctms.environment import Setting, prefixed
from ctms.settings import PREFIX_OF_PLUGINS

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """An installed plugin: its package, its hooks, and the reason if it is disabled."""

    name: str
    package: str
    version: str
    disabled_reason: str | None = None
    hooks: tuple[str, ...] = ()
    settings: Any = None
    module: str = ""

    @property
    def title(self) -> str:
        """The plugin with its package, for messages."""
        return f"plugin {self.name!r} of {self.package} {self.version}".rstrip()

    @property
    def prefix(self) -> str:
        """The prefix of its settings' variables."""
        return f"{PREFIX_OF_PLUGINS}{self.name.upper()}_"

    def declared_settings(self) -> list[tuple[str, Setting, Any]]:
        """Return all its settings, in order, like `Settings.declared`: the variables have the plugin's prefix."""
        if self.settings is None:
            return []
        return prefixed(type(self.settings), self.prefix)


@dataclass(frozen=True)
class Registered(Generic[T]):
    """A registration, and the plugin that it belongs to."""

    plugin: Plugin
    value: T
