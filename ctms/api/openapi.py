"""The OpenAPI document and the pages that show it; their scripts and styles are served by the app itself."""

from __future__ import annotations

from importlib import metadata

import flask_smorest
from flask import Flask

API_DESCRIPTION = "Contacts, their newsletters and waitlists."


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api with our errors and our assets."""

    def __init__(self, app: Flask) -> None:
        app.config.update(
            API_TITLE="ConTact Management System (CTMS)",
            API_VERSION=metadata.version("ctms"),
            OPENAPI_VERSION="3.1.0",
            OPENAPI_URL_PREFIX="/",
            OPENAPI_JSON_PATH="openapi.json",
        )
        super().__init__(app)

    def _register_error_handlers(self) -> None:
        """Errors are answered in one place, `ctms.api.responses`."""
