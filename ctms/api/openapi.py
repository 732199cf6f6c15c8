"""The OpenAPI document and the pages that show it; their scripts and styles are served by the app itself."""

from __future__ import annotations

from importlib import metadata

import flask_smorest
import marshmallow as ma
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask


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
        super().__init__(app, spec_kwargs={"marshmallow_plugin": MarshmallowPlugin(schema_name_resolver=schema_name)})

    def _register_error_handlers(self) -> None:
        """Errors are answered in one place, `ctms.api.responses`."""


def schema_name(schema: ma.Schema | type[ma.Schema]) -> str:
    """Name a schema in the document after its class; what is loaded in part is a `…Patch`."""
    kind = schema if isinstance(schema, type) else type(schema)
    name = kind.__name__.removesuffix("Schema")
    partial = isinstance(schema, ma.Schema) and schema.partial
    return f"{name.removesuffix('Patch')}Patch" if partial else name
