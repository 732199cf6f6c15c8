"""Routes for the platform: health checks, version (Dockerflow), and the redirect to the documentation."""

from __future__ import annotations

import json

import marshmallow as ma
from flask import Response, redirect

from ctms.api.blueprint import Blueprint
from ctms.api.openapi.errors import ERROR
from ctms.api.responses import json_response
from ctms.contacts import fields
from ctms.contacts.fields import Schema
from ctms.telemetry.health import read_version, run_health_checks

blueprint = Blueprint("Platform", __name__, description="Health checks and version (Dockerflow)")


VERSION = {
    "description": "Version of the service (Dockerflow's `version.json`).",
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("source", "version", "commit", "build")},
}


class LivenessSchema(Schema):
    """Liveness status."""

    status = fields.String(choices=("ok",))


class HeartbeatSchema(Schema):
    """Health check results."""

    status = fields.String(choices=("ok", "warning", "error"))
    checks = ma.fields.Dict(keys=ma.fields.String(), values=ma.fields.String())
    details = ma.fields.Dict(keys=ma.fields.String())


@blueprint.route("/")
@blueprint.operation("redirect_to_docs")
@blueprint.response(
    307,
    {"type": "string"},
    content_type="text/html",
    description="Redirect to the documentation",
    headers={"Location": "Location"},
)
def root() -> Response:
    """Redirect to the documentation."""
    return redirect("./docs", 307)  # type: ignore[return-value]


@blueprint.route("/__version__")
@blueprint.operation("read_version")
@blueprint.response(200, VERSION)
def show_version() -> Response:
    """Return the version of the service."""
    return json_response(json.dumps(read_version()))


@blueprint.route("/__lbheartbeat__")
@blueprint.operation("read_lbheartbeat")
@blueprint.response(200, LivenessSchema)
def show_lbheartbeat() -> Response:
    """Return the liveness status, without any checks."""
    return json_response('{"status":"ok"}')


@blueprint.route("/__heartbeat__")
@blueprint.operation("read_heartbeat")
@blueprint.alt_response(500, schema={"anyOf": [HeartbeatSchema, ERROR]}, description="A required dependency is down")
@blueprint.response(200, HeartbeatSchema)
def show_heartbeat() -> Response:
    """Run the health checks: the database, its migrations, and those of plugins."""
    found = run_health_checks()
    return json_response(json.dumps(found), 500 if found["status"] == "error" else 200)


@blueprint.route("/__crash__")
@blueprint.operation("crash")
@blueprint.guard(None)
def crash() -> Response:
    """Raise an error, to test error reporting."""
    raise RuntimeError("a crash was requested")
