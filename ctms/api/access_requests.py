"""`/access-requests`: reports of everything that is stored about a person."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import marshmallow as ma
from flask import Response
from flask.views import MethodView

from ctms.api.blueprint import Blueprint, caller_id, connection, require_authorized
from ctms.api.history import SubscriptionEventSchema
from ctms.api.openapi import examples
from ctms.api.parameters import path_id
from ctms.api.responses import json_response
from ctms.bulk.entries import make_entry, resolve_entries
from ctms.clients.access import EXPORT_CONTACTS
from ctms.contacts import fields
from ctms.contacts.fields import Schema
from ctms.errors import Invalid, NotFound
from ctms.settings import app_settings
from ctms.subject_access import copies, html, personal_data, requests
from ctms.subject_access.report import VERSION, compose, with_report

blueprint = Blueprint("Access requests", __name__, description="Reports of everything that is stored about a person")

UNKNOWN = "Unknown access request"

# No cache, of a client or on the way, may keep a report.
_HEADERS = {"Cache-Control": "no-store"}
_HEADERS_OF_PAGE = {
    **_HEADERS,
    "Content-Security-Policy": f"{html.POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_ID = {
    "in": "path",
    "name": "request_id",
    "description": "The id of the access request.",
    "schema": {"type": "string", "format": "uuid"},
}


class AccessRequestBodySchema(Schema):
    """The person whose data is requested."""

    address = fields.String(
        255,
        min_length=1,
        required=True,
        metadata={
            "description": "An address of the person, in any spelling. Other text is invalid, unless it is stored as"
            " one."
        },
    )


class AccessReportQuery(Schema):
    """The format of the response."""

    format = fields.String(
        choices=("json", "html"),
        load_default="json",
        metadata={"description": "`html` returns only the report, as a page for people."},
    )


class AccessErasureSchema(ma.Schema):
    """An erasure of the address."""

    id = fields.UUID()
    requested_at = fields.Timestamp()
    origin = fields.String()
    forget = fields.Boolean(metadata={"description": "Whether the address was suppressed, too."})
    status = fields.String()


class AccessCopySchema(ma.Schema):
    """A backend's copy of a contact."""

    backend = fields.String()
    status = fields.String(
        choices=copies.STATUSES,
        metadata={
            "description": "`pending`: the background service has yet to read it; `unsupported`: the backend's copies"
            " cannot be read."
        },
    )
    fetched_at = fields.Timestamp()
    error = fields.String(load_default=None)
    data = ma.fields.Dict(allow_none=True, metadata={"description": "What the other system returned."})


class AccessContactSchema(ma.Schema):
    """A contact with the address."""

    email_id = fields.UUID()
    found_by = ma.fields.List(
        ma.fields.String(), metadata={"description": "The identities of the contact that have the address."}
    )
    data = ma.fields.Dict(
        metadata={"description": "The stored rows of each part of a contact, with every column, as they are stored."}
    )
    records = ma.fields.Dict(metadata={"description": "Rows about the contact in other tables, by table."})
    history = ma.fields.List(
        ma.fields.Nested(SubscriptionEventSchema),
        metadata={"description": "The events of the contact's subscriptions and consents, oldest first."},
    )
    copies = ma.fields.List(ma.fields.Nested(AccessCopySchema))


class AccessReportSchema(ma.Schema):
    """Everything that is stored about the person; contacts that were erased since the request are left out."""

    format = fields.String()
    version = ma.fields.Integer(metadata={"description": f"Version of the report's format, {VERSION}."})
    created_at = fields.Timestamp()
    suppressed = ma.fields.Boolean(
        allow_none=True,
        metadata={"description": "Whether the address is suppressed; null without `CTMS_ERASURE_KEY`."},
    )
    erasures = ma.fields.List(
        ma.fields.Nested(AccessErasureSchema),
        allow_none=True,
        metadata={"description": "Erasures of the address; null without `CTMS_ERASURE_KEY`."},
    )
    contacts = ma.fields.List(ma.fields.Nested(AccessContactSchema))
    classification = ma.fields.Dict(
        metadata={"description": "The category, purpose and retention of each column, by part."}
    )


class AccessRequestSchema(ma.Schema):
    """Record of an access request, which names nobody, and its report while that is stored."""

    id = fields.UUID()
    requested_at = fields.Timestamp()
    requested_by = fields.String(
        metadata={"description": "Requester: `client:` and the id of an API client, or `operator:` and a name."}
    )
    origin = fields.String(
        metadata={"description": "Origin of the request: `api`, or `command` for `flask ctms subject-access`."}
    )
    contacts = ma.fields.Integer(metadata={"description": "Number of contacts that were found."})
    copies = ma.fields.Integer(metadata={"description": "Number of copies to be read from backends."})
    failed = ma.fields.Integer(metadata={"description": "Number of copies that could not be read."})
    expires_at = fields.Timestamp()
    status = fields.String(
        choices=requests.STATUSES,
        metadata={
            "description": "`pending`: the background service has yet to read copies of backends; `ready`: the report"
            " is complete; `expired`: the report is no longer stored, or the command did not store it."
        },
    )
    report = ma.fields.Nested(AccessReportSchema, allow_none=True)


@blueprint.route("/access-requests")
class AccessRequests(MethodView):
    """All access requests."""

    init_every_request = False

    @blueprint.operation("create_access_request", errors=(413, 422))
    @blueprint.guard(EXPORT_CONTACTS)
    @blueprint.arguments(AccessRequestBodySchema(), examples=examples.ACCESS)
    @blueprint.response(202, AccessRequestSchema, headers={"Location": "Location", "Cache-Control": "Cache-Control"})
    def post(self, asked: dict[str, Any]) -> Response:
        """Collect everything that is stored about the person of an address.

        The response has what is stored here; the background service adds the copies of backends soon. The report is
        deleted after `CTMS_ACCESS_REPORT_DAYS`, and what it has about a contact is deleted with the contact.
        """
        require_authorized()
        (entry,) = resolve_entries(connection(), [make_entry(None, asked["address"])])
        if entry.address is None:
            message = f"Input should be an e-mail address: {entry.problem}"
            raise Invalid([{"loc": ["body", "address"], "msg": message, "type": "value_error"}])
        requests.delete_expired(connection())
        request_id = requests.add(
            connection(),
            personal_data.find(connection(), entry.address),
            {name: copy and copy.text for name, copy in copies.initial_copies().items()},
            by=f"client:{caller_id()}",
            days=app_settings().access_report_days,
        )
        stored = requests.find(connection(), request_id)
        assert stored is not None  # noqa: S101  it was just added
        return json_response(_with_report(stored), 202, {**_HEADERS, "Location": f"/access-requests/{request_id}"})


@blueprint.route("/access-requests/<string:request_id>", parameters=[_ID])
@blueprint.operation("read_access_request", errors=(404, 422), has_page=True)
@blueprint.guard(EXPORT_CONTACTS)
@blueprint.arguments(AccessReportQuery(), location="query")
@blueprint.response(200, AccessRequestSchema, headers={"Cache-Control": "Cache-Control"})
def access_request(query: dict[str, Any], request_id: str) -> Response:
    """Return the record of an access request and its report.

    With `format=html`, returns the report as a page, or 404 if it is no longer stored.
    """
    wanted: UUID = path_id("request_id", request_id)
    stored = requests.find(connection(), wanted)
    if stored is None or (query["format"] == "html" and stored.result is None):
        raise NotFound(UNKNOWN if stored is None else "The report is no longer stored", headers=_HEADERS)
    if stored.result is not None and query["format"] == "html":
        page = html.render(compose(stored.result, stored.contacts), stored.deleted)
        return Response(page, 200, _HEADERS_OF_PAGE, content_type="text/html; charset=utf-8")
    return json_response(_with_report(stored), 200, _HEADERS)


def _with_report(stored: requests.StoredReport) -> str:
    report = None if stored.result is None else compose(stored.result, stored.contacts)
    return with_report(stored.record, report)
