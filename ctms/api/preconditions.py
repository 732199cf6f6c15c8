"""Conditional requests (RFC 9110, 13): the state of a contact has a strong ETag, the hash of its document."""

from __future__ import annotations

from hashlib import blake2b

from flask import Response, request
from werkzeug.http import quote_etag

from ctms.api.responses import json_text
from ctms.contacts.documents import with_status
from ctms.errors import PreconditionFailed


def etag(document: str) -> str:
    """Return the (unquoted) ETag of a contact's document."""
    return blake2b(document.encode(), digest_size=16).hexdigest()


def contact_response(document: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with a contact, or with 304 when the client has just this state of it."""
    tag = etag(document)
    headers = {"ETag": quote_etag(tag), **(headers or {})}
    if status == 200 and request.method in {"GET", "HEAD"} and request.if_none_match.contains_weak(tag):
        return Response(status=304, headers=headers)
    return json_text(with_status(document), status, headers)


def is_conditional() -> bool:
    """True when the client wants its write done on one state of the contact only."""
    return "If-Match" in request.headers


def require_match(document: str | None) -> None:
    """Raise `PreconditionFailed` unless `If-Match` names the state that is stored (None: nothing is)."""
    if document is None or (not request.if_match.is_strong(etag(document)) and not request.if_match.star_tag):
        raise PreconditionFailed("The contact has changed")
