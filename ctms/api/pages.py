"""The OpenAPI document and the pages that show it: Swagger UI and Redoc, from files of ours, never a CDN.

All addresses in the pages are relative, so that they are right behind a proxy's prefix too.
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
"""What the pages load, by name: nothing else is served."""

A_YEAR = 365 * 24 * 60 * 60

# Both libraries write styles into the page; Redoc's search runs in a worker that is made of a blob.
_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

blueprint = Blueprint("Documentation", __name__, description="This document", template_folder=str(ASSETS))
assets = flask.Blueprint("Assets", __name__)


@blueprint.route("/openapi.json")
@blueprint.operation("read_openapi")
@blueprint.response(
    200,
    {"type": "object", "additionalProperties": True},
    description="An OpenAPI 3.1 document",
    headers={"ETag": "ETag"},
)
@blueprint.alt_response(304, description="The client has it", headers={"ETag": "ETag"})
def openapi() -> Response:
    """Return the OpenAPI document."""
    response = Response(current_document(), content_type="application/json")
    response.headers["Cache-Control"] = "no-cache"
    response.add_etag()
    response.make_conditional(request)
    return response


@blueprint.route("/docs")
@blueprint.operation("show_docs")
@blueprint.response(200, {"type": "string"}, content_type="text/html", description="The page")
def docs() -> Response:
    """Show the operations, ready to be tried (Swagger UI)."""
    return _page("docs.html")


@blueprint.route("/redoc")
@blueprint.operation("show_redoc")
@blueprint.response(200, {"type": "string"}, content_type="text/html", description="The page")
def redoc() -> Response:
    """Show the operations, to be read (Redoc)."""
    return _page("redoc.html")


@assets.route("/docs/assets/<string:version>/<string:name>")
def asset(version: str, name: str) -> Response:
    """Return a script, style or picture of the pages."""
    if name not in FILES:
        raise NotFound("Not Found")
    response = Response(_content(FILES[name]), mimetype=mimetypes.guess_type(name)[0])
    if version == assets_version():
        response.headers["Cache-Control"] = f"public, max-age={A_YEAR}, immutable"
    else:
        # While a new release is rolled out, a page of one instance may load from another.
        response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.add_etag()
    response.make_conditional(request)
    return response


@cache
def assets_version() -> str:
    """Return a name for the content of all files: their addresses change when they do."""
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
