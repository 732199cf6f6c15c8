"""Routes that plugins bring: guarded like ours, on paths that are free."""

from __future__ import annotations

from collections.abc import Iterator

import flask_smorest
from flask import Flask
from werkzeug.routing import Rule

from ctms.api.blueprint import permission_of
from ctms.api.openapi import Api
from ctms.errors import PluginError
from ctms.hooks.manager import Registered
from ctms.telemetry.requests import template


def register_plugin_blueprint(app: Flask, api: Api, registered: Registered[flask_smorest.Blueprint]) -> None:
    """Register the blueprint of a plugin.

    Raises `PluginError` when its name or one of its paths is taken, or when a route is not guarded.
    """
    title, blueprint = registered.plugin.title, registered.value
    if blueprint.name in app.blueprints:
        raise PluginError(f"{title}: ctms_blueprints yields {blueprint.name!r}, a name that is taken: rename it")
    taken = {template(rule.rule) for rule in app.url_map.iter_rules()}
    api.register_blueprint(blueprint)
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.startswith(f"{blueprint.name}."):
            continue
        if template(rule.rule) in taken:
            raise PluginError(f"{title}: ctms_blueprints brings {rule.rule}, a path that is taken: choose another")
        for method in unguarded(app, rule):
            raise PluginError(
                f"{title}: ctms_blueprints brings {method} {rule.rule} without a guard:"
                " decorate it with @blueprint.guard(permission)"
            )


def unguarded(app: Flask, rule: Rule) -> Iterator[str]:
    """Yield the methods of a route that no `guard` protects."""
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        if permission_of(app.view_functions[rule.endpoint], method) is ...:
            yield method
