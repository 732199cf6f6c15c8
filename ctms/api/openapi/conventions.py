"""Conventions of all operations: the headers of requests and responses."""

from __future__ import annotations

from typing import Any

from apispec import APISpec, BasePlugin

REQUEST_ID = "X-Request-Id"

HEADERS: dict[str, dict[str, Any]] = {
    REQUEST_ID: {
        "description": "Request id, sent by the client or generated. The log contains it.",
        "schema": {"type": "string"},
        "required": True,
    },
    "ETag": {
        "description": "Entity tag of this state, for `If-None-Match` and, for a contact, `If-Match`.",
        "schema": {"type": "string"},
        "required": True,
    },
    "Location": {"description": "URL of the resource.", "schema": {"type": "string", "format": "uri-reference"}},
    "WWW-Authenticate": {"description": "Authentication scheme.", "schema": {"type": "string"}, "required": True},
    "Retry-After": {
        "description": "Delay before a retry, in seconds.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "required": True,
    },
    "RateLimit": {
        "description": "Remaining requests `r` of the API client; without any, the seconds `t` until the next one. Only"
        " for clients with a rate limit (draft-ietf-httpapi-ratelimit-headers-10).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "Rate limit of the API client: at most `q` requests at once, refilled in `w` seconds"
        " (draft-ietf-httpapi-ratelimit-headers-10).",
        "schema": {"type": "string"},
    },
    "Erasure-Id": {
        "description": "Id of the erasure's record: `GET /erasures/{id}`.",
        "schema": {"type": "string", "format": "uuid"},
        "required": True,
    },
    "Also-Known-In": {
        "description": "Number of other contacts with the address as `fxa_primary_email`, or that lost it in a merge;"
        " they are kept.",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "required": True,
    },
    "Cache-Control": {"description": "Caching policy of the response.", "schema": {"type": "string"}},
}

PARAMETERS: dict[str, dict[str, Any]] = {
    REQUEST_ID: {
        "description": "Request id: at most 128 letters, digits, `.`, `-` and `_`. An invalid id is replaced.",
        "schema": {"type": "string"},
    },
    "If-None-Match": {
        "description": "`ETag` of the client's copy. If it is still current, the response is 304.",
        "schema": {"type": "string"},
    },
    "Idempotency-Key": {
        "description": "Unique key of this request for the client, at most 255 ASCII characters, hard to guess. A"
        " repeated request with the same key and body has no further effect; a different body is a 422.",
        "schema": {"type": "string", "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    },
    "If-Match": {
        "description": "`ETag` that the contact must still have (`*`: the contact must exist), otherwise 412."
        " A weak tag (`W/`) never matches.",
        "schema": {"type": "string"},
    },
}


class Conventions(BasePlugin):
    """Plugin that registers the headers, and adds the request id to every operation."""

    def init_spec(self, spec: APISpec) -> None:
        """Register the headers with `spec`; each appears only if it is used."""
        for name, header in HEADERS.items():
            spec.components.header(name, dict(header), lazy=True)
        for name, parameter in PARAMETERS.items():
            spec.components.parameter(name, "header", {"name": name, "required": False, **parameter}, lazy=True)

    def operation_helper(self, path: str | None = None, operations: dict[str, Any] | None = None, **_: Any) -> None:
        """Add the request id to the parameters and responses of `operations`."""
        for operation in (operations or {}).values():
            operation["parameters"] = [*operation.get("parameters", []), REQUEST_ID]
            for response in operation["responses"].values():
                if isinstance(response, dict):
                    response.setdefault("headers", {})[REQUEST_ID] = REQUEST_ID
