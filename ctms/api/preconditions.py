"""Conditional requests (RFC 9110, 13): the state of a contact has a strong ETag, the hash of its document."""

from __future__ import annotations

from hashlib import blake2b

from flask import Response

from ctms.contacts.documents import with_status
from ctms.current import current_request
from ctms.errors import PreconditionFailed

NEEDS_STRONG_TAG = 'If-Match needs a strong tag: send the ETag without W/, as in "5f3a"'


def contact_response(document: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Answer with a contact, or with 304 when the client has just this state of it."""
    body, tag = _representation(document)
    headers = {"ETag": f'"{tag}"', **(headers or {})}
    asked = current_request()
    if status == 200 and "HTTP_IF_NONE_MATCH" in asked.environ and asked.method in {"GET", "HEAD"}:
        known = asked.if_none_match
        if known.star_tag or known.contains_weak(tag):
            return Response(status=304, headers=headers)
    return Response(body, status, headers, content_type="application/json")


def is_conditional() -> bool:
    """True when the client wants its write done on one state of the contact only."""
    return "HTTP_IF_MATCH" in current_request().environ


def require_match(document: str | None) -> None:
    """Raise `PreconditionFailed` unless `If-Match` names the state that is stored (None: nothing is).

    A weak tag never matches (RFC 9110, 13.1.1). Proxies that compress make one of ours.
    """
    wanted = current_request().if_match
    if document is not None and (wanted.star_tag or wanted.is_strong(_representation(document)[1])):
        return
    if wanted.as_set(include_weak=True) - wanted.as_set():
        raise PreconditionFailed(NEEDS_STRONG_TAG)
    raise PreconditionFailed("The contact has changed")


def _representation(document: str) -> tuple[bytes, str]:
    body = with_status(document).encode()
    return body, blake2b(body, digest_size=16).hexdigest()
