"""The errors in the document: one body, `{"detail": …}`, and a response for each status."""

from __future__ import annotations

from typing import Any

from apispec.core import Components

from ctms.api.openapi.conventions import REQUEST_ID

ERROR = "Error"
CONFLICT = "ConflictError"
TOKEN_ERROR = "TokenError"  # noqa: S105  a name

_DETAIL = {
    "description": "What is wrong: a sentence, or every value that does not validate.",
    "oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": "Problem"}],
}

SCHEMAS: dict[str, dict[str, Any]] = {
    "Problem": {
        "description": "A value that does not validate. It is never repeated here, as it may be a person's.",
        "type": "object",
        "required": ["loc", "msg", "type"],
        "properties": {
            "loc": {
                "description": "Where: `body`, `query` or `path`, then the way to the value.",
                "type": "array",
                "minItems": 1,
                # Without a type: openapi-generator cannot read a choice of types that is inside another (`detail`).
                "items": {"description": "The name of a member (text) or the index of an entry (an integer)."},
            },
            "msg": {"type": "string", "description": "What is wrong, for people."},
            "type": {"type": "string", "description": "What is wrong, for programs."},
        },
    },
    ERROR: {
        "description": "Why there is no other answer.",
        "type": "object",
        "required": ["detail"],
        "properties": {"detail": _DETAIL},
    },
    CONFLICT: {
        "description": "Which identity is taken.",
        "type": "object",
        "required": ["detail"],
        "properties": {
            "detail": {"type": "string"},
            "field": {"type": "string", "description": "The member in conflict, where it is known."},
        },
    },
    TOKEN_ERROR: {
        "description": "Why there is no token, for people and (`error`, RFC 6749, 5.2) for programs.",
        "type": "object",
        "required": ["detail", "error"],
        "properties": {
            "detail": _DETAIL,
            "error": {"type": "string", "enum": ["invalid_client", "invalid_request", "unsupported_grant_type"]},
            "error_description": {"type": "string", "description": "Which form fields are missing, if any are."},
        },
    },
}

_EXAMPLES: dict[str, Any] = {
    "a sentence": "email_id in path must match email_id in contact",
    "problems": [{"loc": ["body", "email", "primary_email"], "msg": "Field required", "type": "missing"}],
}

RESPONSES: dict[int, tuple[str, str, str, dict[str, Any], tuple[str, ...]]] = {
    400: (
        "BadRequest",
        "The request cannot be answered as it stands, or the API client has been disabled",
        ERROR,
        {"disabled client": "API Client has been disabled"},
        (),
    ),
    401: (
        "Unauthorized",
        "No token, or one that is not good (any more)",
        ERROR,
        {"no token": "Not authenticated", "bad token": "Could not validate credentials"},
        ("WWW-Authenticate",),
    ),
    403: (
        "Forbidden",
        "The API client lacks a permission, or the address is suppressed: its owner wants to be forgotten",
        ERROR,
        {"no permission": "Permission(s) required: manage_contacts", "forgotten": "Address is suppressed"},
        (),
    ),
    404: ("NotFound", "There is no such contact or erasure", ERROR, {"no contact": "Unknown email_id"}, ()),
    409: (
        "Conflict",
        "An identity belongs to another contact, or the contact exists and differs",
        CONFLICT,
        {"taken": "Contact already exists"},
        (),
    ),
    412: (
        "PreconditionFailed",
        "`If-Match` names another state of the contact than the stored one, or has a weak tag",
        ERROR,
        {
            "changed": "The contact has changed",
            "weak": 'If-Match needs a strong tag: send the ETag without W/, as in "5f3a"',
        },
        (),
    ),
    413: ("TooLarge", "The body is too large", ERROR, {"too large": "Request Entity Too Large"}, ()),
    422: ("Invalid", "Values do not validate", ERROR, _EXAMPLES, ()),
    500: ("InternalError", "A fault of the service", ERROR, {"a fault": "Internal Server Error"}, ()),
    503: (
        "Unavailable",
        "The database cannot be reached or is too slow, or the service is too busy; trying again may help",
        ERROR,
        {
            "away": "the database is not available",
            "busy": "too many clients have not finished sending their requests",
        },
        ("Retry-After",),
    ),
}
"""Status: the name of the response, its description, its schema, values of `detail`, headers."""


def register_errors(components: Components) -> None:
    """Add the schemas and the responses, each to appear when an operation refers to it."""
    for name, schema in SCHEMAS.items():
        components.schema(name, schema, lazy=True)
    for name, description, schema_name, details, headers in RESPONSES.values():
        components.response(
            name,
            {
                "description": description,
                "headers": {header: header for header in (*headers, REQUEST_ID)},
                "content": {
                    "application/json": {
                        "schema": schema_name,
                        "examples": {title: {"value": {"detail": detail}} for title, detail in details.items()},
                    }
                },
            },
            lazy=True,
        )


def error_responses(statuses: tuple[int, ...]) -> dict[int, str]:
    """Return the responses of `statuses`, by the names under which they are registered."""
    return {status: RESPONSES[status][0] for status in statuses}
