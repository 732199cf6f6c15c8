"""The app factory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from typing import Any

from flask import Flask, Request
from werkzeug.routing import MapAdapter

import ctms.retention.models  # noqa: F401  no route uses its tables, but `flask db check` compares them
from ctms.api import init_api
from ctms.api.openapi import answers
from ctms.clients.attempt_limiter import init_attempt_limiter
from ctms.clients.rate_limits import init_rate_limiter
from ctms.clients.roles import init_permissions
from ctms.clients.tokens import init_tokens
from ctms.contacts.newsletter_rules import init_newsletter_registry
from ctms.contacts.waitlist_rules import init_waitlist_registry
from ctms.database.engine import init_database
from ctms.database.migrations import init_migrations
from ctms.hooks.checks import logging_tracebacks
from ctms.hooks.manager import init_plugins
from ctms.outbox.changes import init_outbox
from ctms.settings import Settings
from ctms.suppression.fingerprints import init_fingerprints
from ctms.telemetry.health import init_health
from ctms.telemetry.logs import init_logs, log_summaries
from ctms.telemetry.metrics import ApiMetrics, init_metrics
from ctms.telemetry.recorders import create_recorder
from ctms.telemetry.requests import init_requests
from ctms.telemetry.slots import open_slots


class App(Flask):
    """Flask without per-request work for features that CTMS does not use: coroutines, routes bound to a host."""

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function; Flask would check in each request whether it is a coroutine."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Match paths only; Flask would also parse the host."""
        if request is None:
            return super().create_url_adapter(None)
        return MapAdapter(
            self.url_map,
            server_name=request.host,
            script_name=request.root_path or "/",
            subdomain="",
            url_scheme=request.scheme,
            path_info=request.path,
            default_method=request.method,
        )


def create_app(settings: Settings | None = None, plugins_found: Iterable[EntryPoint] | None = None) -> Flask:
    """Create the app, by default with settings from the environment and the installed plugins.

    Raises `SettingsError` or `PluginError`. Opens no connection and starts nothing: the first request that needs the
    database connects.
    """
    settings = settings or Settings.from_environment()
    app = App("ctms", static_folder=None)
    app.url_map.merge_slashes = False  # a path with an empty segment is another path, not to be redirected
    app.extensions["ctms.settings"] = settings
    init_logs(settings)
    init_database(app, settings)
    init_tokens(app, settings)
    init_attempt_limiter(app, settings)
    init_rate_limiter(app)
    init_fingerprints(app, settings)
    slots = open_slots()  # before metrics are created: it decides where they keep their values
    metrics = ApiMetrics(app.extensions["ctms.pool"])
    recorder = create_recorder(slots, metrics.count, log_summaries, sample=metrics.pool.sample)
    init_metrics(app, metrics, slots, recorder)
    init_requests(app, recorder.add)
    with logging_tracebacks(settings):
        plugins = init_plugins(app, settings, plugins_found)
        init_permissions(plugins.collect("ctms_permissions"))
        init_migrations(app, plugins.collect("ctms_migrations"), plugins.collect("ctms_permissions"))
        init_health(app, plugins.collect("ctms_health_checks"))
        init_outbox(app, plugins.collect("ctms_backends"))
        init_waitlist_registry(app, plugins.collect("ctms_waitlists"), metrics.create_rule_metrics)
        newsletters = plugins.collect("ctms_newsletters")
        init_newsletter_registry(app, newsletters, settings.newsletters, metrics.count_unavailable_newsletter)
        init_api(app, plugins.collect("ctms_blueprints"))
    metrics.preinitialize(answers(app))
    return app
