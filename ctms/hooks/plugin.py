"""A plugin, and what it handed over, which always goes with the plugin's name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ctms.environment import Setting, prefixed
from ctms.settings import PREFIX_OF_PLUGINS

T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """A plugin that is installed: where it comes from, which hooks it implements, and why it is off if it is."""

    name: str
    package: str
    version: str
    why_off: str | None = None
    hooks: tuple[str, ...] = ()
    settings: Any = None
    module: str = ""

    @property
    def title(self) -> str:
        """The plugin with its package, for messages."""
        return f"plugin {self.name!r} of {self.package} {self.version}".rstrip()

    @property
    def prefix(self) -> str:
        """What the variables of its settings begin with."""
        return f"{PREFIX_OF_PLUGINS}{self.name.upper()}_"

    def declared_settings(self) -> list[tuple[str, Setting, Any]]:
        """All its settings, in order, as `Settings.declared` gives ours: the variables have their prefix."""
        if self.settings is None:
            return []
        return prefixed(type(self.settings), self.prefix)


@dataclass(frozen=True)
class Registered(Generic[T]):
    """What a plugin handed over, and which plugin that was."""

    plugin: Plugin
    value: T
