"""The OpenAPI document and its pages, Swagger UI and Redoc, from the service's own files, never a CDN.

All URLs in the pages are relative, so that they also work behind a proxy's path prefix.
"""

from __future__ import annotations

import mimetypes
from functools import cache
from hashlib import blake2b
from pathlib import Path

import flask
import flask_swagger_ui
from flask import Response, make_response, render_template, request

from ctms.api.blueprint import Blueprint
from ctms.api.openapi import current_document
from ctms.errors import NotFound

ASSETS = Path(__file__).parent.parent / "assets"
SWAGGER_UI = Path(flask_swagger_ui.__file__).parent / "dist"

FILES = {
    path.name: path
    for path in (
        ASSETS / "docs.js",
        ASSETS / "docs.css",
        ASSETS / "redoc.standalone.js",
        SWAGGER_UI / "swagger-ui.css",
        SWAGGER_UI / "swagger-ui-bundle.js",
        SWAGGER_UI / "favicon-32x32.png",
    )
}
"""The static files of the pages, by name: no others are served."""

YEAR_SECONDS = 365 * 24 * 60 * 60

# Both libraries write inline styles; Redoc's search runs in a worker created from a blob.
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

blueprint = Blueprint("Documentation", __name__, description="The API documentation", template_folder=str(ASSETS))
assets = flask.Blueprint("Assets", __name__)


@blueprint.route("/openapi.json")
@blueprint.operation("read_openapi")
@blueprint.response(
    200,
    {"type": "object", "additionalProperties": True},
    description="OpenAPI 3.1 document",
    headers={"ETag": "ETag"},
)
@blueprint.alt_response(304, description="Not modified", headers={"ETag": "ETag"})
def openapi() -> Response:
    """Return the OpenAPI document."""
    response = Response(current_document(), content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.route("/docs")
@blueprint.operation("show_docs")
@blueprint.response(200, {"type": "string"}, content_type="text/html", description="HTML page")
def docs() -> Response:
    """Return the interactive API documentation (Swagger UI)."""
    return _page("docs.html")


@blueprint.route("/redoc")
@blueprint.operation("show_redoc")
@blueprint.response(200, {"type": "string"}, content_type="text/html", description="HTML page")
def redoc() -> Response:
    """Return the API documentation (Redoc)."""
    return _page("redoc.html")


@assets.route("/docs/assets/<string:version>/<string:name>")
def asset(version: str, name: str) -> Response:
    """Return a script, style sheet or image of the pages."""
    if name not in FILES:
        raise NotFound("Not Found")
    response = Response(_content(FILES[name]), mimetype=mimetypes.guess_type(name)[0])
    if version == assets_version():
        response.headers["Cache-Control"] = f"public, max-age={YEAR_SECONDS}, immutable"
    else:
        # During a deployment, a page of one instance may load files from another.
        response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def assets_version() -> str:
    """Return a hash of all files, which is part of their URLs."""
    digest = blake2b(digest_size=8)
    for path in FILES.values():
        digest.update(_content(path))
    return digest.hexdigest()


@cache
def _content(path: Path) -> bytes:
    return path.read_bytes()


def _page(template: str) -> Response:
    response = make_response(render_template(template, assets=f"docs/assets/{assets_version()}"))
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
