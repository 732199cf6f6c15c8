"""Discovery and loading of plugins: one manager per app, in a stable order.

Plugins are the entry points of the group `ctms` of all installed packages, including CTMS. An entry point's name is the
plugin's name. Its value is a module, an object or a class (which each app instantiates) with hook implementations, and
a `Settings` dataclass if the plugin has settings. Plugins are loaded, called and listed in the order of their names.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from flask import Flask

from ctms.current import extension
from ctms.errors import PluginError
from ctms.hooks import checks, specs
from ctms.hooks.places import module_of, place_of_error
from ctms.hooks.plugin import Plugin, Registered
from ctms.settings import Settings

GROUP = "ctms"
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


class Plugins:
    """The plugins of one app, created by `survey_plugins` and `load_plugins`.

    `problems` has the errors of unusable plugins. `load_plugins` raises the first, so an app has none.
    """

    def __init__(self, *, trace: bool = False) -> None:
        self._manager = pluggy.PluginManager(specs.PROJECT)
        self._manager.add_hookspecs(specs)
        self._trace = trace
        self._plugins: list[Plugin] = []
        self._registered: dict[str, list[Registered[Any]]] = {hook: [] for hook in specs.HOOKS}
        self.problems: list[PluginError] = []

    def __iter__(self) -> Iterator[Plugin]:
        return iter(self._plugins)

    def get(self, name: str) -> Plugin | None:
        """Return the plugin of that name."""
        return next((plugin for plugin in self if plugin.name == name), None)

    def problem_of(self, name: str) -> str | None:
        """Return why the plugin cannot be used, or None if no problem was found."""
        return next((error.message for error in self.problems if name in error.plugins), None)

    def add(self, plugin: Plugin) -> None:
        """List a plugin."""
        self._plugins.append(plugin)

    def load(self, plugin: Plugin, point: EntryPoint) -> None:
        """Load a listed plugin: import it, read its settings and call each of its hooks once.

        Raises `PluginError` if it cannot be used; then nothing of it is registered.
        """
        position = self._plugins.index(plugin)
        try:
            implementation = _imported(plugin, point)
            plugin = dataclasses.replace(
                plugin,
                hooks=checks.register(self._manager, plugin, implementation),
                settings=checks.plugin_settings(plugin, getattr(implementation, "Settings", None)),
            )
            self._plugins[position] = plugin
            answers = {hook: checks.call_hook(self._manager, plugin, hook, self._trace) for hook in plugin.hooks}
        except PluginError:
            self._manager.unregister(name=plugin.name)
            raise
        for hook, values in answers.items():
            self._registered[hook] += [Registered(plugin, value) for value in values]

    def collect(self, hook: str) -> Sequence[Registered[Any]]:
        """Return the registrations of all plugins with `hook`, in the order of the plugins' names."""
        return tuple(self._registered[hook])

    def clashes(self) -> Iterator[PluginError]:
        """Yield an error for each name that is registered twice with one hook."""
        for hook, found in self._registered.items():
            seen: dict[str, Registered[Any]] = {}
            for one in found:
                name = checks.name_of(one.value)
                other = seen.setdefault(name, one)
                if other is not one:
                    yield _clash(hook, name, other.plugin, one.plugin)


def survey_plugins(settings: Settings, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the installed plugins, or those `found`, except disabled ones.

    The error of a plugin is stored in `problems`, and does not affect others.
    """
    plugins = Plugins(trace=settings.plugins_trace)
    named = _by_name(entry_points(group=GROUP) if found is None else found)
    plugins.problems += _unknown(settings, list(named))
    for point in (point for same in named.values() for point in same):
        plugin = _described(point, settings)
        plugins.add(plugin)
        if plugin.disabled_reason is None:
            try:
                _refuse_name(plugin, named[plugin.name])
                plugins.load(plugin, point)
            except PluginError as error:
                plugins.problems.append(error)
    plugins.problems += plugins.clashes()
    broken = {name for problem in plugins.problems for name in problem.plugins}
    plugins.problems += checks.misspelt(plugins, broken)
    return plugins


def load_plugins(settings: Settings, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load plugins as `survey_plugins` does, all of them or none.

    Raises `PluginError`: one message that names package, version, hook and a hint.
    """
    plugins = survey_plugins(settings, found)
    if plugins.problems:
        raise plugins.problems[0]
    return plugins


def init_plugins(app: Flask, settings: Settings, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the installed plugins, or those `found`, for the app. Raises `PluginError`."""
    plugins = load_plugins(settings, found)
    app.extensions["ctms.plugins"] = plugins
    return plugins


def app_plugins() -> Plugins:
    """Return the plugins of the current app."""
    found: Plugins = extension("ctms.plugins")
    return found


def disabled_reason(name: str, settings: Settings) -> str | None:
    """Return the reason if the settings disable the plugin of that name, else None."""
    if name in settings.plugins_disabled:
        return "CTMS_PLUGINS_DISABLED names it"
    if settings.plugins is not None and name not in settings.plugins:
        return "CTMS_PLUGINS does not name it"
    return None


def _described(point: EntryPoint, settings: Settings) -> Plugin:
    package, version = (point.dist.name, point.dist.version) if point.dist else ("an unknown package", "")
    return Plugin(point.name, package, version, disabled_reason(point.name, settings), module=module_of(point))


def _imported(plugin: Plugin, point: EntryPoint) -> object:
    try:
        loaded = point.load()
        return loaded() if inspect.isclass(loaded) else loaded
    except (Exception, SystemExit) as error:
        place = place_of_error(error, plugin.module)
        raise checks.problem(plugin, f"it cannot be imported ({checks.reason(error)})", place=place) from error


def _by_name(found: Iterable[EntryPoint]) -> Mapping[str, list[EntryPoint]]:
    """Return the entry points of each name, in the order of names, and of packages: Python finds them in any order."""
    named: dict[str, list[EntryPoint]] = {}
    for point in sorted(found, key=lambda point: point.name):
        named.setdefault(point.name, []).append(point)
    for same in named.values():
        if len(same) > 1:  # for the package's name Python reads its metadata
            same.sort(key=lambda point: point.dist.name if point.dist else "")
    return named


def _refuse_name(plugin: Plugin, same: Sequence[EntryPoint]) -> None:
    if not _NAME.fullmatch(plugin.name):
        raise checks.problem(
            plugin,
            "a plugin's name consists of lower-case letters, digits and _ and begins with a letter",
            f"rename the entry point in the group {GROUP!r}",
        )
    if len(same) > 1:
        packages = " and ".join(f"{point.dist.name} {point.dist.version}" for point in same if point.dist)
        raise PluginError(
            f"plugin {plugin.name!r} comes with {packages}, and a name is one plugin's: uninstall one of them, rename"
            f" an entry point, or set CTMS_PLUGINS_DISABLED={plugin.name}",
            plugin.name,
        )


def _unknown(settings: Settings, installed: Sequence[str]) -> Iterator[PluginError]:
    for variable, names in (("CTMS_PLUGINS", settings.plugins), ("CTMS_PLUGINS_DISABLED", settings.plugins_disabled)):
        unknown = sorted(set(names or ()) - set(installed))
        if unknown:
            there = ", ".join(installed) or "none"
            yield PluginError(
                f"{variable} names {', '.join(unknown)}, which no installed package brings:"
                f" install it or remove the name (the plugins are {there})"
            )


def _clash(hook: str, name: str, first: Plugin, second: Plugin) -> PluginError:
    if first is second:
        return checks.problem(first, f"{hook} registers {name!r} twice", "remove or rename one")
    return PluginError(
        f"{first.title} and {second.title} both register {name!r} with {hook}:"
        f" rename one, or set CTMS_PLUGINS_DISABLED={second.name} or {first.name}",
        first.name,
        second.name,
    )
