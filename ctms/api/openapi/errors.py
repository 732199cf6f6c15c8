"""Error responses in the document: one body, `{"detail": …}`, and a response for each status."""

from __future__ import annotations

from typing import Any

from apispec.core import Components

from ctms.api.openapi.conventions import REQUEST_ID

ERROR = "Error"
CONFLICT = "ConflictError"
GONE = "GoneError"
PROBLEM = "Problem"
TOKEN_ERROR = "TokenError"  # noqa: S105  a name

_DETAIL = {
    "description": "Error message, or the list of validation errors.",
    "oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": PROBLEM}],
}

SCHEMAS: dict[str, dict[str, Any]] = {
    PROBLEM: {
        "description": "Validation error. The value is never repeated, since it may be personal data.",
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "description": "Location of the value: `body`, `query` or `path`, then the path to the value.",
                "type": "array",
                "minItems": 1,
                # Without a type: openapi-generator cannot read a choice of types that is inside another (`detail`).
                "items": {"description": "Name of a member (text) or index of an entry (an integer)."},
            },
            "msg": {"type": "string", "description": "Human-readable message."},
            "type": {"type": "string", "description": "Machine-readable error type."},
        },
    },
    ERROR: {
        "description": "Error response.",
        "type": "object",
        "required": ["detail"],
        # Optional members, not a schema of its own for 404: existing code of generated clients expects this type.
        "properties": {
            "detail": _DETAIL,
            "field": {
                "type": "string",
                "description": "With 404, the member of the body with the unknown id, if it has one.",
            },
            "also_known_in": {
                "type": "integer",
                "description": "With 404, number of contacts that have or had the address not as their own, if any.",
            },
            "merged_into": {
                "type": "string",
                "format": "uuid",
                "description": "With 404, id of the contact that this one was merged into, if any.",
            },
        },
    },
    CONFLICT: {
        "description": "Conflict with another contact, or a limit is reached.",
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"type": "string"},
            "field": {"type": "string", "description": "The conflicting member, if known."},
        },
    },
    GONE: {
        "description": "The requested deletions are no longer recorded.",
        "type": "object",
        "required": ["detail", "recorded_since"],
        "properties": {
            "detail": {"type": "string"},
            "recorded_since": {
                "type": "string",
                "format": "date-time",
                "description": "Earliest `start` for which deletions are recorded.",
            },
        },
    },
    TOKEN_ERROR: {
        "description": "Token error response; `error` is the OAuth 2 error code (RFC 6749, 5.2).",
        "type": "object",
        "required": ["detail", "error"],
        "properties": {
            "detail": _DETAIL,
            "error": {"type": "string", "enum": ["invalid_client", "invalid_request", "unsupported_grant_type"]},
            "error_description": {"type": "string", "description": "The missing form fields, if any."},
        },
    },
}

_EXAMPLES: dict[str, Any] = {
    "message": "email_id in path must match email_id in contact",
    "validation errors": [{"loc": ["body", "email", "primary_email"], "msg": "Field required", "type": "missing"}],
}

RESPONSES: dict[int, tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = {
    400: (
        "BadRequest",
        "Invalid request, or disabled API client",
        ERROR,
        {"disabled client": "API Client has been disabled"},
        (),
    ),
    401: (
        "Unauthorized",
        "Missing, invalid or expired token",
        ERROR,
        {"missing token": "Not authenticated", "invalid token": "Could not validate credentials"},
        ("WWW-Authenticate",),
    ),
    403: (
        "Forbidden",
        "Missing permission, suppressed address (its owner asked to be forgotten), or invalid link",
        ERROR,
        {"missing permission": "Permission(s) required: manage_contacts", "suppressed": "Address is suppressed"},
        (),
    ),
    404: ("NotFound", "Unknown contact or erasure", ERROR, {"unknown contact": "Unknown email_id"}, ()),
    409: (
        "Conflict",
        "Identity taken by another contact, a different contact with this id or address exists, or too many exports",
        CONFLICT,
        {"taken": "Contact already exists", "exports": "The client has 30 exports that wait, run or have files: …"},
        (),
    ),
    410: (
        "Gone",
        "Deletions since `start` are no longer recorded",
        GONE,
        {
            "too old": {
                "detail": "Deletions before 2026-01-31T09:30:00+00:00 are no longer listed: …",
                "recorded_since": "2026-01-31T09:30:00+00:00",
            }
        },
        (),
    ),
    412: (
        "PreconditionFailed",
        "`If-Match` does not match the current state of the contact, or is a weak tag",
        ERROR,
        {
            "changed": "The contact has changed",
            "weak": 'If-Match needs a strong tag: send the ETag without W/, as in "5f3a"',
        },
        (),
    ),
    413: ("TooLarge", "Body too large", ERROR, {"too large": "Request Entity Too Large"}, ()),
    422: ("Invalid", "Validation error", ERROR, _EXAMPLES, ()),
    429: (
        "TooManyRequests",
        "Rate limit of the API client exceeded",
        ERROR,
        {"rate limit": "Too many requests: the limit of the client is 100/s"},
        ("Retry-After", "RateLimit", "RateLimit-Policy"),
    ),
    500: ("InternalError", "Internal error", ERROR, {"internal error": "Internal Server Error"}, ()),
    501: (
        "NotConfigured",
        "Not configured by the operator",
        ERROR,
        {"exports": "Exports are not configured: set CTMS_EXPORT_DIR"},
        (),
    ),
    503: (
        "Unavailable",
        "Database unavailable or too slow, or service too busy; the client may retry",
        ERROR,
        {
            "database": "the database is not available",
            "busy": "too many clients have not finished sending their requests",
        },
        ("Retry-After",),
    ),
}
"""Maps a status to the response's name, description, schema, examples (a body, or its `detail`), and headers."""


def register_errors(components: Components) -> None:
    """Register the schemas and responses; each appears only if an operation uses it."""
    for name, schema in SCHEMAS.items():
        components.schema(name, schema, lazy=True)
    for name, description, schema_name, examples, headers in RESPONSES.values():
        components.response(
            name,
            {
                "description": description,
                "headers": {header: header for header in (*headers, REQUEST_ID)},
                "content": {
                    "application/json": {
                        "schema": schema_name,
                        "examples": {
                            title: {"value": example if isinstance(example, dict) else {"detail": example}}
                            for title, example in examples.items()
                        },
                    }
                },
            },
            lazy=True,
        )


def error_responses(statuses: tuple[int, ...]) -> dict[int, str]:
    """Return the registered names of the responses of `statuses`."""
    return {status: RESPONSES[status][0] for status in statuses}
