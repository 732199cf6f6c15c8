"""Conditional requests (RFC 9110, 13): each state of a contact has a strong ETag, the hash of its document.

Werkzeug evaluates `If-None-Match` when a contact is read. A write evaluates `If-Match` itself, before it changes
anything.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Response

from ctms.api.responses import json_response
from ctms.contacts.documents import etag, needs_strong_tag, with_status
from ctms.current import current_request
from ctms.errors import PreconditionFailed


def contact_response(document: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the response that holds a contact, or 304 if a reading client has this state of it."""
    response = json_response(with_status(document), status, headers)
    response.set_etag(etag(response.get_data()))
    environ = current_request().environ
    if "HTTP_IF_NONE_MATCH" in environ:
        response.make_conditional({**environ, "HTTP_IF_MATCH": ""})  # `If-Match` concerns writes only
    return response


def find_precondition() -> Callable[[str | None], None] | None:
    """Return the check of `If-Match`, None if the client allows its write for every state of the contact."""
    return require_match if "HTTP_IF_MATCH" in current_request().environ else None


def require_match(document: str | None) -> None:
    """Raise `PreconditionFailed` unless `If-Match` names the stored state (None: nothing is stored).

    A weak tag never matches (RFC 9110, 13.1.1). Proxies that compress responses weaken tags.
    """
    if_match = current_request().if_match
    if document is not None and etag(with_status(document).encode()) in if_match:
        return
    if if_match.as_set(include_weak=True) - if_match.as_set():
        raise PreconditionFailed(needs_strong_tag("If-Match"))
    raise PreconditionFailed("The contact has changed")
