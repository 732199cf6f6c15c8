"""Routes of plugins, which must have a guard and paths that are not taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import flask_smorest
from flask import Flask
from werkzeug.routing import Rule

from ctms.api.blueprint import permission_of
from ctms.api.openapi import Api
from ctms.errors import PluginError
from ctms.hooks.checks import reason
from ctms.hooks.places import place_of, place_of_error
from ctms.hooks.plugin import Plugin, Registered
from ctms.telemetry.requests import format_template


def register_plugin_blueprints(app: Flask, api: Api, registered: Sequence[Registered[flask_smorest.Blueprint]]) -> None:
    """Register the blueprints of plugins, after those of CTMS.

    Raises `PluginError` when a name or a path is taken, or when a route has no guard or cannot be documented.
    """
    owners: dict[str, Plugin | None] = {_shape(rule): None for rule in app.url_map.iter_rules()}
    for one in registered:
        owners |= _register(app, api, one, owners)


def _register(
    app: Flask, api: Api, one: Registered[flask_smorest.Blueprint], owners: dict[str, Plugin | None]
) -> dict[str, Plugin | None]:
    """Register one blueprint, and return its paths with their plugin."""
    plugin, blueprint = one.plugin, one.value
    brings = f"{plugin.title}: ctms_blueprints yields the blueprint {blueprint.name!r}"
    if blueprint.name in app.blueprints:
        raise PluginError(f"{brings}, a name that the service has: rename it", plugin.name)
    there = {id(rule) for rule in app.url_map.iter_rules()}  # of rules, equal means of equal paths
    failure = None
    try:
        api.register_blueprint(blueprint)
    except Exception as error:  # noqa: BLE001  raised below, unless a specific error explains it
        failure = error
    brought: dict[str, Plugin | None] = {}
    for rule in app.url_map.iter_rules():
        if id(rule) in there:
            continue
        path = format_template(rule.rule)
        if _shape(rule) in owners:
            owner = owners[_shape(rule)]
            names = [plugin.name, owner.name] if owner else [plugin.name]
            raise PluginError(
                f"{brings} with the path {path}, which {owner.title if owner else 'the service'} has:"
                f" choose another, or set CTMS_PLUGINS_DISABLED={plugin.name}",
                *names,
            )
        for method in unguarded_methods(app, rule):
            place = _in(place_of(app.view_functions[rule.endpoint]))
            raise PluginError(
                f"{brings} with {method} {path}, which nothing guards{place}:"
                " decorate the view with @blueprint.guard(permission) of a ctms.plugins.Blueprint",
                plugin.name,
            )
        brought[_shape(rule)] = plugin
    if failure is not None:
        raise PluginError(
            f"{brings}, which cannot be registered ({reason(failure)}){_in(place_of_error(failure, plugin.module))}:"
            f" fix or uninstall {plugin.package}, or set CTMS_PLUGINS_DISABLED={plugin.name}",
            plugin.name,
        ) from failure
    return brought


def unguarded_methods(app: Flask, rule: Rule) -> Iterator[str]:
    """Yield the methods of a route that have no `guard`."""
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        if permission_of(app.view_functions[rule.endpoint], method) is ...:
            yield method


def _in(place: str | None) -> str:
    return f", in {place}" if place else ""


def _shape(rule: Rule) -> str:
    """Return the path of a rule without the names of its variables, equal for rules with the same paths."""
    return re.sub(r"<[^>]*>", "{}", rule.rule)
