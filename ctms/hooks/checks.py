"""Validation of plugins before they are used. Each check raises `PluginError`, whose message says what to do."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import logging
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
import flask_smorest
import pluggy

from ctms.environment import (
    DeclarationError,
    Setting,
    close_to,
    declared,
    read_values,
    set_variables,
    variables,
)
from ctms.errors import PluginError, SettingsError
from ctms.hooks import specs
from ctms.hooks.places import place_of, place_of_error, raised_by
from ctms.hooks.plugin import Plugin
from ctms.hooks.receivers import Backend, DeletionHandler
from ctms.hooks.registrations import HealthCheck, Migrations, Newsletter, Permission, RegistrationError, Waitlist
from ctms.hooks.trials import bounded, find_unstorable
from ctms.settings import PREFIX, PREFIX_OF_PLUGINS, Settings

logger = logging.getLogger(__name__)

MASK = "***"

REGISTRATIONS: Mapping[str, type[Any]] = {
    "ctms_waitlists": Waitlist,
    "ctms_newsletters": Newsletter,
    "ctms_backends": Backend,
    "ctms_deletion_handlers": DeletionHandler,
    "ctms_blueprints": flask_smorest.Blueprint,
    "ctms_commands": click.Command,
    "ctms_health_checks": HealthCheck,
    "ctms_migrations": Migrations,
    "ctms_permissions": Permission,
}
"""The type of registration of each hook."""


def problem(plugin: Plugin, what: str, hint: str = "", place: str | None = None) -> PluginError:
    """Return the error about a plugin: `what` is wrong in one line, and the `hint`, if it is not the usual one.

    `place` is the file and line in the plugin's code.
    """
    usual = f"fix or uninstall {plugin.package}, or set CTMS_PLUGINS_DISABLED={plugin.name}"
    where = f", in {place}" if place else ""
    return PluginError(f"{plugin.title}: {' '.join(what.split())}{where}: {hint or usual}", plugin.name)


@contextmanager
def logging_tracebacks(settings: Settings) -> Iterator[None]:
    """Log the traceback of a plugin's error that prevents the start, if the settings trace plugins."""
    try:
        yield
    except PluginError as error:
        if settings.plugins_trace:
            log_traceback(error)
        raise


def log_traceback(error: PluginError) -> None:
    """Log the plugin's exception, if there is one: the types of its chain and their lines, never their messages."""
    if error.__cause__ is not None:
        plugin = ", ".join(error.plugins)
        logger.info("plugin %s cannot be used", plugin, exc_info=error.__cause__, extra={"plugin": plugin})


def reason(error: BaseException) -> str:
    """Return the type of an exception and its message, in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def register(manager: pluggy.PluginManager, plugin: Plugin, implementation: object) -> tuple[str, ...]:
    """Register the plugin's hook implementations; return their names."""
    if type(implementation).__hash__ is None:
        raise problem(plugin, "its object cannot be hashed", "if it is a dataclass, declare it with eq=False")
    _refuse_unknown_hooks(manager, plugin, implementation)
    try:
        manager.register(implementation, plugin.name)
    except (pluggy.PluginValidationError, ValueError) as error:
        hook = re.search(r"^(ctms_\w+)\(", str(error).rpartition("hookimpl definition: ")[2])
        place = place_of(getattr(implementation, hook[1], None)) if hook else None
        raise problem(plugin, _registering_problem(error), place=place) from error
    found = set()
    for caller in manager.get_hookcallers(implementation) or []:
        if caller.name not in specs.HOOKS:
            continue  # of another version, marked as optional
        found.add(caller.name)
        for one in caller.get_hookimpls():
            if one.plugin is implementation and one.kwargnames:
                named = ", ".join(one.kwargnames)
                raise problem(
                    plugin,
                    f"{caller.name} has a default value for {named}, and would get that instead of the argument",
                    "remove the default value",
                    place_of(one.function),
                )
    if not found:
        raise problem(
            plugin,
            f"it implements no hook, and the hooks are {', '.join(specs.HOOKS)}",
            "mark its functions with @ctms.plugins.hookimpl",
        )
    return tuple(sorted(found))


def _refuse_unknown_hooks(manager: pluggy.PluginManager, plugin: Plugin, implementation: object) -> None:
    for name in dir(implementation):
        options = manager.parse_hookimpl_opts(implementation, name)
        if options is None:
            if name in specs.HOOKS:
                place = place_of(getattr(implementation, name))
                raise problem(plugin, f"{name} is not marked as a hook", "mark it with @ctms.plugins.hookimpl", place)
            continue
        place = place_of(getattr(implementation, name))
        hook = options.get("specname") or name
        if options.get("wrapper") or options.get("hookwrapper"):
            hint = "mark it with a plain @hookimpl"
            raise problem(plugin, f"{hook} is a wrapper, and hooks are not wrapped", hint, place)
        if hook not in specs.HOOKS and not options.get("optionalhook"):
            close = difflib.get_close_matches(hook, specs.HOOKS, 1)
            hint = f"did you mean {close[0]}?" if close else f"the hooks are {', '.join(specs.HOOKS)}"
            raise problem(plugin, f"there is no hook {hook}", hint, place)


def _registering_problem(error: Exception) -> str:
    if isinstance(error, pluggy.PluginValidationError):
        hooks = "every hook takes the one argument settings, or none"
        return f"{str(error).rpartition('hookimpl definition: ')[2]} ({hooks})"
    return "another plugin has the same module or object, and each plugin needs its own"


def plugin_settings(plugin: Plugin, cls: object) -> Any:
    """Read the plugin's settings into its class `Settings`, if it has one."""
    if cls is None:
        return None
    hint = "make Settings a dataclass whose fields are all created by ctms.plugins.setting()"
    if not (inspect.isclass(cls) and dataclasses.is_dataclass(cls)):
        raise problem(plugin, "its Settings are not a dataclass", hint, place_of(cls))
    try:
        values = read_values(cls, plugin.prefix)
    except DeclarationError as error:
        typed = "give it a type that the reference of ctms.plugins lists, or a convert"
        hint = hint if "not created by" in str(error) else typed
        raise problem(plugin, str(error), hint, place_of(cls)) from error
    except SettingsError as error:
        raise problem(plugin, error.message, f"correct it, or set CTMS_PLUGINS_DISABLED={plugin.name}") from error
    try:
        return cls(**values)
    except (Exception, SystemExit) as error:
        what = f"its Settings failed with {reason(error)}"
        place = place_of_error(error, plugin.module)
        raise problem(plugin, mask_secrets(what, declared(cls), values), place=place) from error


def misspelt(plugins: Iterable[Plugin], unusable: Container[str]) -> Iterator[PluginError]:
    """Yield an error for each plugin with unknown variables in the environment.

    A variable belongs to the plugin whose prefix it has, of two matching prefixes to the longer; but a setting of any
    plugin is known. Variables of plugins that are off, `unusable` or not installed are ignored: their settings are
    unknown.
    """
    owners = sorted(plugins, key=lambda plugin: -len(plugin.name))
    known = {variable for plugin in owners for variable in variables(plugin.declared_settings())}
    for variable in set_variables(PREFIX_OF_PLUGINS):
        owner = next((plugin for plugin in owners if variable.startswith(plugin.prefix)), None)
        if variable in known:
            continue
        if owner is None:
            close = close_to(variable, sorted(variables(Settings.declared())), PREFIX, 0.9)
            if close is not None:  # CTMS_PLUGIN_DISABLED
                yield PluginError(f"there is no setting {variable}: did you mean {close}?")
        elif owner.disabled_reason is None and owner.name not in unusable:
            yield _no_setting(owner, variable)


def _no_setting(plugin: Plugin, variable: str) -> PluginError:
    own = plugin.declared_settings()
    close = close_to(variable, sorted(variables(own)), plugin.prefix)
    there = f"the settings are {', '.join(how.variable for _, how, _ in own)}" if own else "it has no settings"
    return problem(
        plugin, f"there is no setting {variable}", f"did you mean {close}?" if close else f"unset it, {there}"
    )


def call_hook(manager: pluggy.PluginManager, plugin: Plugin, hook: str, trace: bool) -> list[Any]:
    """Call the plugin's implementation of `hook`; return its registrations. With `trace`, log the call."""
    if trace:
        _trace(plugin, hook, "is called")
    try:
        values = _answers(manager, plugin, hook)
    except PluginError as error:
        if trace:
            _trace(plugin, hook, f"failed, {error.message}")
        raise
    if trace:
        _trace(plugin, hook, f"registers {', '.join(map(repr, map(name_of, values))) or 'nothing'}")
    return values


def _answers(manager: pluggy.PluginManager, plugin: Plugin, hook: str) -> list[Any]:
    others = [other for name, other in manager.list_name_plugin() if name != plugin.name]
    caller = manager.subset_hook_caller(hook, others)
    wanted = REGISTRATIONS[hook]
    hint = f"yield {wanted.__name__} objects, or return a list of them"
    try:
        results = caller(settings=plugin.settings)
        none = len(results) < len(caller.get_hookimpls())  # pluggy omits None results
        other = [result for result in results if not _holds_registrations(result)]
        values = [] if none or other else [value for result in results for value in result]
    except (Exception, SystemExit) as error:
        # A `RegistrationError` says what to change, which may be one of the operator's files.
        change = f"change that, or set CTMS_PLUGINS_DISABLED={plugin.name}"
        hint = change if isinstance(error, RegistrationError) else ""
        # One that the plugin raised itself has no other place.
        names_place = isinstance(error, RegistrationError) and raised_by(error, plugin.module)
        place = None if names_place else place_of_error(error, plugin.module)
        raise problem(plugin, f"{hook} failed with {_without_secrets(plugin, reason(error))}", hint, place) from error
    place = place_of(caller.get_hookimpls()[0].function)
    if none or other:
        raise problem(plugin, f"{hook} returned {'None' if none else f'one {type(other[0]).__name__}'}", hint, place)
    for value in values:
        if not isinstance(value, wanted):
            raise problem(plugin, f"{hook} yielded one {type(value).__name__}", hint, place)
        if not name_of(value):
            raise problem(plugin, f"{hook} yielded one {type(value).__name__} without a name", "name it", place)
        if isinstance(value, Waitlist):
            _try_rules(plugin, value, place)
    return values


def _try_rules(plugin: Plugin, waitlist: Waitlist, place: str | None) -> None:
    try:
        found = bounded(lambda: find_unstorable(waitlist))
    except (TimeoutError, SystemExit) as error:
        what = f"the rules of the waitlist {waitlist.name!r} were tried and failed with {reason(error)}"
        raised = place_of_error(error, plugin.module) if isinstance(error, SystemExit) else place
        raise problem(plugin, what, place=raised) from error
    if found is not None:
        hint = "store text or a number instead: in marshmallow, Decimal(as_string=True) or Float()"
        raise problem(plugin, f"ctms_waitlists yields the waitlist {waitlist.name!r}: {found}", hint, place)


def _holds_registrations(result: Any) -> bool:
    return isinstance(result, Iterable) and not isinstance(result, str | bytes | Mapping)


def name_of(value: Any) -> str:
    """Return the name of a registration."""
    return str(value.name or "")


def mask_secrets(text: str, declared: Iterable[tuple[str, Setting, Any]], values: Mapping[str, Any]) -> str:
    """Return the text without the values of secret settings: a plugin's exception may quote them."""
    for name, how, _ in declared:
        value = values.get(name)
        if how.secret and value:
            for secret in value if isinstance(value, list | tuple | set | frozenset) else (value,):
                text = text.replace(str(secret), MASK)
    return text


def _without_secrets(plugin: Plugin, text: str) -> str:
    own = plugin.declared_settings()
    return mask_secrets(text, own, {name: getattr(plugin.settings, name) for name, _, _ in own})


def _trace(plugin: Plugin, hook: str, what: str) -> None:
    logger.info("hook %s of plugin %s %s", hook, plugin.name, what, extra={"hook": hook, "plugin": plugin.name})
