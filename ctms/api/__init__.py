"""HTTP: the routes, request parsing, responses, and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence

import flask_smorest
from flask import Flask

from ctms.api import (
    access_requests,
    batches,
    contacts,
    erasures,
    exports,
    history,
    identities,
    merges,
    newsletters,
    pages,
    platform,
    search,
    token,
    updates,
    waitlists,
)
from ctms.api.drain import BodyDrain, init_body_slots
from ctms.api.extensions import register_plugin_blueprints
from ctms.api.openapi import Api
from ctms.api.responses import init_errors
from ctms.hooks.plugin import Registered

# More than any contact needs: a contact with 1,000 newsletters has about 200 kB.
MAX_BODY_IN_BYTES = 1024 * 1024

BLUEPRINTS = (
    contacts.blueprint,
    batches.blueprint,
    merges.blueprint,
    search.blueprint,
    updates.blueprint,
    history.blueprint,
    identities.blueprint,
    erasures.blueprint,
    access_requests.blueprint,
    exports.blueprint,
    waitlists.blueprint,
    newsletters.blueprint,
    token.blueprint,
    platform.blueprint,
    pages.blueprint,
)


def init_api(app: Flask, of_plugins: Sequence[Registered[flask_smorest.Blueprint]] = ()) -> None:
    """Register the built-in routes, those of plugins, and their documentation. Raises `PluginError`."""
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_IN_BYTES
    slots = init_body_slots(app, app.extensions["ctms.settings"])
    app.wsgi_app = BodyDrain(app.wsgi_app, slots)  # type: ignore[method-assign]
    api = Api(app)
    for blueprint in BLUEPRINTS:
        api.register_blueprint(blueprint)
    app.register_blueprint(pages.assets)
    api.document_metrics(app)
    waitlists.init_waitlist_documents(app, api)
    newsletters.init_newsletter_documents(app, api)
    register_plugin_blueprints(app, api, of_plugins)
    init_errors(app)
