"""`/token`: OAuth 2 client credentials (RFC 6749, 4.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import marshmallow as ma
from flask import Response, request

from ctms.api.blueprint import Blueprint
from ctms.api.drain import body_slots, has_body
from ctms.api.openapi import BASIC_SCHEME
from ctms.api.openapi.errors import TOKEN_ERROR
from ctms.api.responses import error_response, json_response
from ctms.clients.attempt_limiter import attempt_limiter
from ctms.clients.refusals import TokenFailure
from ctms.clients.registry import InvalidCredentials, authenticate
from ctms.clients.tokens import tokens
from ctms.contacts import fields
from ctms.contacts.fields import Schema
from ctms.current import current_request
from ctms.errors import ApiError, Invalid
from ctms.request_context import request_context

blueprint = Blueprint("Token", __name__, description="Tokens for API clients")

WRONG = "Incorrect username or password"
_CREDENTIALS = ("client_id", "client_secret")
_FORMS = {"application/x-www-form-urlencoded", "multipart/form-data"}
_CHALLENGE = 'Basic realm="CTMS", charset="UTF-8"'
_NEVER_STORED = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class TokenRequestSchema(Schema):
    """Credentials of the client, unless sent by HTTP Basic, which takes precedence."""

    grant_type = fields.String(choices=("client_credentials", "refresh_token"))
    client_id = fields.String(255)
    client_secret = fields.String(255)
    scope = fields.String()


class TokenSchema(Schema):
    """Bearer token (RFC 6749, 5.1)."""

    access_token = fields.String(required=True)
    token_type = fields.String(required=True, choices=("bearer",))
    expires_in = ma.fields.Integer(required=True, metadata={"description": "Lifetime of the token, in seconds."})


_HEADERS = {"Cache-Control": "Cache-Control"}
_REQUEST = {
    "required": False,
    "content": {"application/x-www-form-urlencoded": {"schema": TokenRequestSchema}},
}


@blueprint.route("/token", methods=["POST"])
@blueprint.operation("create_token", errors=(413, 503), requestBody=_REQUEST, security=[{}, {BASIC_SCHEME: []}])
@blueprint.response(200, TokenSchema, headers=_HEADERS)
@blueprint.alt_response(
    400,
    schema=TOKEN_ERROR,
    description="Unknown client, wrong secret or missing credentials in the form",
    headers=_HEADERS,
)
@blueprint.alt_response(
    401,
    schema=TOKEN_ERROR,
    description="Unknown client or wrong secret by HTTP Basic",
    headers={**_HEADERS, "WWW-Authenticate": "WWW-Authenticate"},
)
@blueprint.alt_response(422, schema=TOKEN_ERROR, description="Invalid token request", headers=_HEADERS)
@blueprint.alt_response(
    429,
    schema=TOKEN_ERROR,
    description="Too many failed attempts",
    headers={**_HEADERS, "Retry-After": "Retry-After"},
)
def token() -> Response:
    """Exchange a client's id and secret for a token."""
    _read_form()
    try:
        form = Blueprint.ARGUMENTS_PARSER.parse(TokenRequestSchema(), request, location="form")
    except Invalid as error:
        request_context().token_failure = TokenFailure.INVALID_REQUEST
        wrong_grant = any("grant_type" in problem["loc"] for problem in error.detail)  # type: ignore[index]
        return _refused(error, "unsupported_grant_type" if wrong_grant else "invalid_request")
    client_id, secret = _credentials(form)
    address = request.remote_addr or ""
    try:
        attempt_limiter().check(client_id, address)
    except ApiError as error:
        request_context().token_failure = TokenFailure.LIMITED
        return _refused(error, "invalid_request")
    try:
        authenticate(client_id, secret)
    except InvalidCredentials as error:
        request_context().token_failure = error.cause
        attempt_limiter().record_failure(client_id, address)
        return _wrong_credentials(form)
    text = f'{{"access_token":"{tokens().issue(client_id)}","token_type":"bearer","expires_in":{tokens().lifetime}}}'
    return json_response(text, headers=_NEVER_STORED)


def _read_form() -> None:
    """Read the form into the request, in one of the few slots for clients that may never finish sending."""
    asked = current_request()
    if has_body(asked.environ):
        with body_slots().form():
            asked.form  # noqa: B018  the first use reads it


def _uses_basic() -> bool:
    """Return whether the client authenticates by HTTP Basic, even with a malformed header."""
    header: str = current_request().environ.get("HTTP_AUTHORIZATION", "")
    return header.partition(" ")[0].lower() == "basic"


def _credentials(form: dict[str, Any]) -> tuple[str, str]:
    try:
        basic = request.authorization
    except ValueError:  # not even base64
        basic = None
    if basic is not None and basic.type == "basic":
        return basic.username or "", basic.password or ""
    return form.get("client_id", ""), form.get("client_secret", "")


def _wrong_credentials(form: dict[str, Any]) -> Response:
    """Refuse the credentials: HTTP Basic with a challenge (RFC 6749, 5.2), a form with the missing fields."""
    if _uses_basic():
        return error_response(401, WRONG, {**_NEVER_STORED, "WWW-Authenticate": _CHALLENGE}, error="invalid_client")
    missing = [name for name in _CREDENTIALS if name not in form]
    described = {"error_description": _describe(missing)} if missing else {}
    return error_response(400, WRONG, _NEVER_STORED, error="invalid_client", **described)


def _describe(missing: Sequence[str]) -> str:
    """Describe which form fields are missing and where the credentials belong, without their values."""
    asked = current_request()
    text = f"Missing form fields: {', '.join(missing)}."
    if asked.mimetype not in _FORMS and (asked.content_length or "HTTP_TRANSFER_ENCODING" in asked.environ):
        text += " The body is not a form: send Content-Type: application/x-www-form-urlencoded."
    if any(name in asked.args for name in _CREDENTIALS):
        text += " Credentials in the query string are ignored: send them in the body."
    return text


def _refused(error: ApiError, code: str) -> Response:
    return error_response(error.status, error.detail, {**error.headers, **_NEVER_STORED}, error=code)
