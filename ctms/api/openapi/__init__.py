"""The OpenAPI document: what requests may say and what answers hold.

It is made of the schemas that read requests (`inputs`), of the tables that answers are rendered from (`rows`) and of
the errors that `ctms.api.responses` makes (`errors`). Tests hold real answers against it, both ways.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from importlib import metadata
from typing import cast

import flask_smorest
from flask import Flask

from ctms.api.openapi.conventions import Conventions
from ctms.api.openapi.errors import ERROR, error_responses, register_errors
from ctms.api.openapi.inputs import Marshmallow
from ctms.current import extension

SECURITY_SCHEME = "OAuth2ClientCredentials"
BASIC_SCHEME = "ClientBasic"

DESCRIPTION = """\
Contacts, one e-mail address each, with their newsletters and waitlists and what other systems know about the person.

**Authentication.** An API client exchanges its id and secret for a token at `POST /token` and sends it as
`Authorization: Bearer …`. What a client may do depends on the permissions of its roles.

**Errors** are `{"detail": …}`: a sentence, or for values that do not validate a list of `{"loc", "msg", "type"}`.

**Reading requests.** Members that are not known are ignored. Booleans also come as `"yes"`, `"Y"`, `"on"`, `"t"`,
`"true"`, `"1"`, `1` and their opposites. Blank query parameters are absent. Text must not hold U+0000. A body has at
most 1 MiB; a larger one is refused, and up to 64 MiB of it are read and dropped.

Every `GET` answers `HEAD` too, and every path `OPTIONS`; another method is answered with 405 and `Allow`.
"""


class Api(flask_smorest.Api):  # type: ignore[misc]
    """flask-smorest's Api with our errors and our way to describe fields; our own pages show the document."""

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
                # Relative to this document, so that it is right behind a proxy's prefix too.
                "servers": [{"url": "./", "description": "This service"}],
            },
        )
        app.extensions["ctms.openapi"] = self
        register_errors(self.spec.components)
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
        """The document as JSON text. Whoever asks first has all routes registered."""
        return json.dumps(self.spec.to_dict(), ensure_ascii=False, separators=(",", ":"))

    def document_metrics(self, app: Flask) -> None:
        """Describe `/metrics`, a view of prometheus-flask-exporter."""
        operation = {
            "operationId": "read_metrics",
            "tags": ["Platform"],
            "summary": "Return the metrics.",
            "responses": {
                200: {
                    "description": "Prometheus' text format, compressed where `Accept-Encoding` has `gzip`",
                    "content": {"text/plain": {"schema": {"type": "string"}}},
                },
                **error_responses((500,)),
            },
        }
        rule = next(app.url_map.iter_rules("prometheus_metrics"))
        self.spec.path(rule=rule, operations={"get": operation})

    def answers(self) -> Iterator[tuple[str, str, int]]:
        """Give how operations may answer: method, path, status."""
        for path, operations in self.spec.to_dict()["paths"].items():
            for method, operation in operations.items():
                if method != "parameters":
                    exact = [str(status) for status in operation["responses"] if str(status).isdecimal()]
                    yield from ((method.upper(), path, int(status)) for status in exact)

    def _register_pagination_header(self) -> None:
        """Register nothing: the schema of the header would be listed in the document, and nothing uses it."""


def current_document() -> str:
    """Return the document of the current app as JSON text."""
    return cast(Api, extension("ctms.openapi")).text


def answers(app: Flask) -> Iterator[tuple[str, str, int]]:
    """Give how the operations of an app may answer, plugins' too: method, path template, status."""
    return cast(Api, app.extensions["ctms.openapi"]).answers()
