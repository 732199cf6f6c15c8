"""What is the same for all operations: the headers of requests and answers."""

from __future__ import annotations

from typing import Any

from apispec import APISpec, BasePlugin

REQUEST_ID = "X-Request-Id"

HEADERS: dict[str, dict[str, Any]] = {
    REQUEST_ID: {
        "description": "The id of the request: the client's own, or a new one. It stands in the log.",
        "schema": {"type": "string"},
        "required": True,
    },
    "ETag": {
        "description": "Names this state, for `If-None-Match` and, of a contact, `If-Match`.",
        "schema": {"type": "string"},
        "required": True,
    },
    "Location": {"description": "Where to go.", "schema": {"type": "string", "format": "uri-reference"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}, "required": True},
    "Retry-After": {
        "description": "After how many seconds to try again.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "required": True,
    },
    "Erasure-Id": {
        "description": "Names the record of the erasure: `GET /erasures/{id}`.",
        "schema": {"type": "string", "format": "uuid"},
        "required": True,
    },
    "Also-Known-In": {
        "description": "The number of other contacts that carry the address as `fxa_primary_email`; they stay.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "required": True,
    },
    "Cache-Control": {"description": "Whether and how long to keep this.", "schema": {"type": "string"}},
}

PARAMETERS: dict[str, dict[str, Any]] = {
    REQUEST_ID: {
        "description": "An id for this request: letters, digits, `.`, `-` and `_`, at most 128. Others are replaced.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "description": "The `ETag` of the state that the client has: 304 if it is still that.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "description": "Names this request among those of the client, at most 255 characters, hard to guess. Sent again"
        " with the same key and body it is done once; another body is a 422.",
        "schema": {"type": "string", "maxLength": 255},
    },
    "If-Match": {
        "description": "Do it only if this is still the `ETag` of the contact (`*`: if there is one), else 412."
        " A weak tag (`W/`) never matches.",
        "schema": {"type": "string"},
    },
}


class Conventions(BasePlugin):
    """Registers the headers; says of every operation that it takes and returns a request id."""

    def init_spec(self, spec: APISpec) -> None:
        """Register the headers with `spec`, each to appear when something refers to it."""
        for name, header in HEADERS.items():
            spec.components.header(name, dict(header), lazy=True)
        for name, parameter in PARAMETERS.items():
            spec.components.parameter(name, "header", {"name": name, "required": False, **parameter}, lazy=True)

    def operation_helper(self, path: str | None = None, operations: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the header to what `operations` take and answer."""
        for operation in (operations or {}).values():
            operation["parameters"] = [*operation.get("parameters", []), REQUEST_ID]
            for response in operation["responses"].values():
                if isinstance(response, dict):
                    response.setdefault("headers", {})[REQUEST_ID] = REQUEST_ID
