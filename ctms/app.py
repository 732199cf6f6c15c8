"""The app factory."""

from __future__ import annotations

from flask import Flask

from ctms.api import init_api
from ctms.clients.attempts import init_attempts
from ctms.clients.tokens import init_tokens
from ctms.database import init_database
from ctms.settings import Settings
from ctms.telemetry.logs import init_logs
from ctms.telemetry.metrics import init_metrics


def create_app(settings: Settings | None = None) -> Flask:
    """Make the service; without `settings`, from the environment. Raises `SettingsError`.

    Nothing is connected and nothing is started: the database is reached for when the first request needs it.
    """
    settings = settings or Settings.from_environment()
    app = Flask("ctms", static_folder=None)
    app.extensions["ctms.settings"] = settings
    init_logs(app, settings)
    init_database(app, settings)
    init_tokens(app, settings)
    init_attempts(app, settings)
    init_metrics(app)
    init_api(app)
    return app
