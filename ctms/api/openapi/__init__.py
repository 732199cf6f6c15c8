"""The OpenAPI document of requests and responses.

It is generated from the schemas of requests (`inputs`), the tables of responses (`rows`) and the errors that
`ctms.api.responses` creates (`errors`). Tests compare it with real responses, both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from typing import cast

import flask_smorest
from flask import Flask

from ctms.api.openapi import conditions
from ctms.api.openapi.conventions import Conventions
from ctms.api.openapi.errors import ERROR, error_responses, register_errors
from ctms.api.openapi.inputs import Marshmallow
from ctms.current import extension

SECURITY_SCHEME = "OAuth2ClientCredentials"
BASIC_SCHEME = "ClientBasic"

DESCRIPTION = """\
Contacts with one e-mail address each, their newsletters and waitlists, and data of other systems about the person.

**Authentication.** An API client exchanges its id and secret for a token at `POST /token` and sends it as
`Authorization: Bearer …`. The roles of a client determine its permissions.

**Errors** are `{"detail": …}`: a sentence, or for validation errors a list of `{"loc", "msg", "type"}`.

**Requests.** Unknown members of contacts are ignored; those of other bodies are refused where the schema says so.
Booleans may also be `"yes"`, `"Y"`, `"on"`, `"t"`, `"true"`, `"1"`, `1` and their opposites. Blank query parameters
count as absent. Text must not contain U+0000. The maximum size of a body is 1 MiB, and 10 MiB for `POST /ctms/batch`;
a larger one is refused, and up to 64 MiB of it are read and discarded.

**Rate limits.** A client may have a limit. Above it, a request gets 429 with `Retry-After`. The other responses to this
client, except errors, have `RateLimit` and `RateLimit-Policy`, too (draft-ietf-httpapi-ratelimit-headers-10).

Every `GET` route also supports `HEAD`, and every path `OPTIONS`. Other methods get 405 with `Allow`.
"""


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api with our errors, our descriptions of fields and our documentation pages."""

    ERROR_SCHEMA = ERROR
    DEFAULT_ERROR_RESPONSE_NAME = None

    def __init__(self, app: Flask) -> None:
        app.config.update(
            API_TITLE="ConTact Management System (CTMS)",
            API_VERSION=metadata.version("ctms"),
            OPENAPI_VERSION="3.1.0",
        )
        super().__init__(
            app,
            spec_kwargs={
                "marshmallow_plugin": Marshmallow(),
                "extra_plugins": [Conventions()],
                "info": {"description": DESCRIPTION, "license": {"name": "MPL-2.0", "identifier": "MPL-2.0"}},
                # Relative to this document, so that it also works behind a proxy's path prefix.
                "servers": [{"url": "./", "description": "This service"}],
            },
        )
        app.extensions["ctms.openapi"] = self
        register_errors(self.spec.components)
        for name, schema in conditions.schemas().items():
            self.spec.components.schema(name, schema)
        self.spec.components.security_scheme(
            SECURITY_SCHEME,
            {
                "type": "oauth2",
                "description": "The id and the secret of an API client.",
                "flows": {"clientCredentials": {"tokenUrl": "token", "scopes": {}}},
            },
        )
        self.spec.components.security_scheme(
            BASIC_SCHEME,
            {
                "type": "http",
                "scheme": "basic",
                "description": "The id and the secret of an API client, instead of the form fields.",
            },
        )

    @cached_property
    def text(self) -> str:
        """The document as JSON text. The first access must come after all routes are registered."""
        return json.dumps(self.spec.to_dict(), ensure_ascii=False, separators=(",", ":"))

    def document_metrics(self, app: Flask) -> None:
        """Describe `/metrics`, a view of prometheus-flask-exporter."""
        operation = {
            "operationId": "read_metrics",
            "tags": ["Platform"],
            "summary": "Return the metrics.",
            "responses": {
                200: {
                    "description": "Metrics in the text format of Prometheus, gzip on request",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                **error_responses((500,)),
            },
        }
        rule = next(app.url_map.iter_rules("prometheus_metrics"))
        self.spec.path(rule=rule, operations={"get": operation})

    def answers(self) -> Iterator[tuple[str, str, int]]:
        """Yield the documented responses of all operations: method, path, status."""
        for path, operations in self.spec.to_dict()["paths"].items():
            for method, operation in operations.items():
                if method != "parameters":
                    exact = [str(status) for status in operation["responses"] if str(status).isdecimal()]
                    yield from ((method.upper(), path, int(status)) for status in exact)

    def _register_pagination_header(self) -> None:
        """Do nothing: no route uses this kind of pagination."""


def current_document() -> str:
    """Return the document of the current app as JSON text."""
    return cast(Api, extension("ctms.openapi")).text


def answers(app: Flask) -> Iterator[tuple[str, str, int]]:
    """Yield the documented responses of an app's operations, including plugins': method, path template, status."""
    return cast(Api, app.extensions["ctms.openapi"]).answers()
