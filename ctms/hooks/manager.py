"""Finding, loading and checking plugins: one manager per app, in an order that does not change.

Plugins are the entry points of the group `ctms` of all installed packages, ours included. An entry point's name is
the plugin's name, its value a module or an object with hook implementations, and a `Settings` dataclass if the plugin
has settings. Plugins are loaded, called and listed in the order of their names.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

import click
import flask_smorest
import pluggy
from flask import Flask, current_app

from ctms.environment import declared, read_settings
from ctms.errors import PluginError, SettingsError
from ctms.hooks import specs
from ctms.hooks.registrations import Backend, DeletionHandler, HealthCheck, Waitlist
from ctms.settings import Settings

logger = logging.getLogger(__name__)

GROUP = "ctms"
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)

T = TypeVar("T")

REGISTRATIONS: Mapping[str, type[Any]] = {
    "ctms_waitlists": Waitlist,
    "ctms_backends": Backend,
    "ctms_deletion_handlers": DeletionHandler,
    "ctms_blueprints": flask_smorest.Blueprint,
    "ctms_commands": click.Command,
    "ctms_health_checks": HealthCheck,
}
"""What each hook yields."""


@dataclass(frozen=True)
class Plugin:
    """A plugin that is installed: where it comes from, which hooks it implements, and why it is off if it is."""

    name: str
    package: str
    version: str
    why_off: str | None = None
    hooks: tuple[str, ...] = ()
    settings: Any = None

    @property
    def title(self) -> str:
        """The plugin with its package, for messages."""
        return f"plugin {self.name!r} of {self.package} {self.version}"

    @property
    def prefix(self) -> str:
        """What the variables of its settings begin with."""
        return f"CTMS_PLUGIN_{self.name.upper()}_"


@dataclass(frozen=True)
class Registered(Generic[T]):
    """What a plugin handed over, and which plugin that was."""

    plugin: Plugin
    value: T


class Plugins:
    """The plugins of one app. `load` makes it; `collect` asks them."""

    def __init__(self, trace: bool = False) -> None:
        self._manager = pluggy.PluginManager(specs.PROJECT)
        self._manager.add_hookspecs(specs)
        self._plugins: dict[str, Plugin] = {}
        self._collected: dict[str, list[Registered[Any]]] = {}
        if trace:
            self._manager.add_hookcall_monitoring(_before, _after)

    def __iter__(self) -> Iterator[Plugin]:
        return iter(sorted(self._plugins.values(), key=lambda plugin: plugin.name))

    def get(self, name: str) -> Plugin | None:
        """Return the plugin of that name."""
        return self._plugins.get(name)

    def skip(self, plugin: Plugin, why: str) -> None:
        """List the plugin without loading it."""
        self._plugins[plugin.name] = dataclasses.replace(plugin, why_off=why)

    def add(self, plugin: Plugin, implementation: object) -> None:
        """Register what implements the plugin's hooks, and read its settings. Raises `PluginError`."""
        try:
            self._manager.register(implementation, plugin.name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(f"{plugin.title}: {_validation_problem(error)}") from error
        callers = self._manager.get_hookcallers(implementation) or []
        hooks = tuple(sorted(caller.name for caller in callers))
        if not hooks:
            raise PluginError(
                f"{plugin.title} implements no hook: mark its functions with @ctms.plugins.hookimpl;"
                f" the hooks are {', '.join(specs.HOOKS)}"
            )
        self._plugins[plugin.name] = dataclasses.replace(
            plugin, hooks=hooks, settings=_read_settings(plugin, getattr(implementation, "Settings", None))
        )

    def collect(self, hook: str) -> list[Registered[Any]]:
        """Return what the plugins register with `hook`, in the order of their names; each is asked once.

        Raises `PluginError` when one raises, returns what it should not, or registers a name that another has.
        """
        if hook not in self._collected:
            found: list[Registered[Any]] = []
            for plugin in self:
                if hook in plugin.hooks:
                    found += [Registered(plugin, value) for value in self._ask(plugin, hook)]
            _refuse_clashes(hook, found)
            self._collected[hook] = found
        return self._collected[hook]

    def _ask(self, plugin: Plugin, hook: str) -> list[Any]:
        others = [other for name, other in self._manager.list_name_plugin() if name != plugin.name]
        caller = self._manager.subset_hook_caller(hook, others)
        wanted = REGISTRATIONS[hook]
        try:
            values = [value for result in caller(settings=plugin.settings) for value in result]
        except Exception as error:
            raise PluginError(
                f"{plugin.title}: {hook} failed with {type(error).__name__}: {error};"
                " a hook returns an iterable of registrations"
            ) from error
        for value in values:
            if not isinstance(value, wanted):
                raise PluginError(
                    f"{plugin.title}: {hook} must yield {wanted.__name__} objects, not {type(value).__name__}"
                )
        return values


def load_plugins(settings: Settings, found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the installed plugins, or those `found`, but for those that the settings switch off.

    Raises `PluginError`: one message that names package, version, hook and cure.
    """
    plugins = Plugins(settings.plugins_trace)
    points = sorted(entry_points(group=GROUP) if found is None else found, key=lambda point: point.name)
    known = {point.name: _described(point) for point in points}
    _refuse_twins(points)
    _refuse_unknown(settings, known)
    for point in points:
        plugin = known[point.name]
        if point.name in settings.plugins_disabled:
            plugins.skip(plugin, "CTMS_PLUGINS_DISABLED names it")
        elif settings.plugins is not None and point.name not in settings.plugins:
            plugins.skip(plugin, "CTMS_PLUGINS does not name it")
        else:
            plugins.add(plugin, _loaded(plugin, point))
    for hook in specs.HOOKS:
        plugins.collect(hook)
    return plugins


def init_plugins(app: Flask, settings: Settings) -> Plugins:
    """Load the installed plugins for the app. Raises `PluginError`."""
    plugins = load_plugins(settings)
    app.extensions["ctms.plugins"] = plugins
    return plugins


def app_plugins() -> Plugins:
    """The plugins of the current app."""
    found: Plugins = current_app.extensions["ctms.plugins"]
    return found


def _described(point: EntryPoint) -> Plugin:
    package, version = (point.dist.name, point.dist.version) if point.dist else ("an unknown package", "")
    plugin = Plugin(point.name, package, version)
    if not _NAME.fullmatch(point.name):
        raise PluginError(
            f"{plugin.title}: a plugin's name is made of lower-case letters, digits and _ and begins with a letter:"
            f" rename the entry point in the group {GROUP!r}"
        )
    return plugin


def _loaded(plugin: Plugin, point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise PluginError(
            f"{plugin.title} cannot be imported ({type(error).__name__}: {error}):"
            f" mend or uninstall {plugin.package}, or set CTMS_PLUGINS_DISABLED={plugin.name}"
        ) from error


def _refuse_twins(points: list[EntryPoint]) -> None:
    seen: dict[str, EntryPoint] = {}
    for point in points:
        other = seen.setdefault(point.name, point)
        if other is not point:
            raise PluginError(
                f"{_described(other).title} and {_described(point).title} have the same name:"
                " uninstall one of the packages, or rename its entry point"
            )


def _refuse_unknown(settings: Settings, known: Mapping[str, Plugin]) -> None:
    for variable, names in (("CTMS_PLUGINS", settings.plugins), ("CTMS_PLUGINS_DISABLED", settings.plugins_disabled)):
        unknown = sorted(set(names or ()) - set(known))
        if unknown:
            raise PluginError(
                f"{variable} names {', '.join(unknown)}, which no installed package brings;"
                f" there are {', '.join(known) or 'no plugins'}"
            )


def _refuse_clashes(hook: str, found: list[Registered[Any]]) -> None:
    seen: dict[str, Registered[Any]] = {}
    for one in found:
        other = seen.setdefault(one.value.name, one)
        if other is not one:
            raise PluginError(
                f"{other.plugin.title} and {one.plugin.title} both register {one.value.name!r} with {hook}:"
                f" rename one, or set CTMS_PLUGINS_DISABLED={one.plugin.name}"
            )


def _read_settings(plugin: Plugin, cls: object) -> Any:
    if cls is None:
        return None
    if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls)):
        raise PluginError(f"{plugin.title}: Settings must be a dataclass of ctms.plugins.setting() fields")
    try:
        declared(cls)
    except KeyError as error:
        raise PluginError(f"{plugin.title}: every field of Settings must be made by ctms.plugins.setting()") from error
    try:
        return read_settings(cls, plugin.prefix)
    except SettingsError as error:
        raise PluginError(f"{plugin.title}: {error.message}") from error


def _validation_problem(error: pluggy.PluginValidationError) -> str:
    reason = " ".join(str(error).split())
    return f"{reason} (the hooks are {', '.join(specs.HOOKS)}, each with the argument settings)"


def _before(hook: str, implementations: Iterable[Any], _arguments: Mapping[str, Any]) -> None:
    for implementation in implementations:
        logger.info("hook called", extra={"hook": hook, "plugin": implementation.plugin_name})


def _after(outcome: Any, hook: str, implementations: Iterable[Any], _arguments: Mapping[str, Any]) -> None:
    failed = type(outcome.exception).__name__ if outcome.exception else None
    for implementation in implementations:
        logger.info("hook returned", extra={"hook": hook, "plugin": implementation.plugin_name, "failed": failed})
