"""`/events` and `/ctms/{email_id}/history`: the events of subscriptions."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
from flask import Response

from ctms.api.blueprint import Blueprint, connection, fetch_scalar
from ctms.api.feeds import page_response
from ctms.api.parameters import Cursor, Instant, Limit, contact_id
from ctms.clients.access import VIEW_HISTORY
from ctms.contacts import fields, queries
from ctms.contacts.documents import json_array
from ctms.contacts.fields import Schema
from ctms.contacts.tombstones import unknown_contact
from ctms.history import events

blueprint = Blueprint("History", __name__, description="History of subscriptions")

ACTOR = "`client:` and the id of an API client, `operator:` and a user, or a rule of the service; null if unknown."
EVIDENCE = (
    "Evidence from the client. For a baseline, the timestamps of the entry when the history began. For a merge, the"
    " other contact (`merged_from`), and the states and timestamps of both entries."
)
MERGED_FROM = "Contact that the event happened to, if it has been merged into this one since."

_ID = {
    "in": "path",
    "name": "email_id",
    "description": "The id of the contact.",
    "schema": {"type": "string", "format": "uuid"},
}


class HistoryQuery(Schema):
    """Parameters of the history of a contact."""

    limit = Limit(load_default=100)
    after = Cursor(int, load_default=None)


class EventsQuery(HistoryQuery):
    """Parameters of a list of events."""

    start = Instant(required=True)
    end = Instant(load_default=None)


class SubscriptionEventSchema(Schema):
    """Change of a subscription or of a consent."""

    event_id = ma.fields.Integer(metadata={"description": "Id of the event."})
    recorded_at = ma.fields.DateTime()
    email_id = fields.UUID()
    kind = fields.String(choices=events.KINDS)
    name = fields.String(allow_none=True, metadata={"description": "Name of the newsletter or waitlist."})
    action = fields.String(choices=events.ACTIONS)
    subscribed = fields.Boolean(
        allow_none=True,
        metadata={"description": "State after the event; null if the entry was removed from the contact."},
    )
    source = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    actor = fields.String(allow_none=True, metadata={"description": ACTOR})
    request_id = fields.String(allow_none=True)
    evidence = ma.fields.Dict(allow_none=True, metadata={"description": EVIDENCE})
    merged_from = fields.UUID(allow_none=True, metadata={"description": MERGED_FROM})


class HistorySchema(Schema):
    """Page of the events of a contact, oldest first."""

    limit = ma.fields.Integer()
    after = fields.String(allow_none=True)
    next = fields.String(allow_none=True)
    items = ma.fields.List(ma.fields.Nested(SubscriptionEventSchema))


class EventsSchema(HistorySchema):
    """Page of events, oldest first."""

    start = ma.fields.DateTime()
    end = ma.fields.DateTime()


@blueprint.route("/ctms/<string:email_id>/history", parameters=[_ID])
@blueprint.operation("read_history", errors=(404, 422))
@blueprint.guard(VIEW_HISTORY)
@blueprint.arguments(HistoryQuery(), location="query")
@blueprint.response(200, HistorySchema)
def history(query: dict[str, Any], email_id: str) -> Response:
    """List the events of a contact, oldest first.

    The events of a deleted contact are deleted with it.
    """
    wanted = contact_id(email_id)
    if fetch_scalar(queries.identity(wanted)) is None:
        raise unknown_contact(connection(), wanted)
    page = events.history(connection(), wanted, **query)
    items = json_array(page.documents)
    return page_response(f"/ctms/{wanted}/history", {"limit": query["limit"]}, page.after, {"items": items})


@blueprint.route("/events")
@blueprint.operation("list_events", errors=(422,))
@blueprint.guard(VIEW_HISTORY)
@blueprint.arguments(EventsQuery(), location="query")
@blueprint.response(200, EventsSchema)
def feed(query: dict[str, Any]) -> Response:
    """List the events recorded from start to end, oldest first.

    The interval is `[start, end)`. `end` in the response is the end of the list, as for `/updates`: a client that
    continues from there misses nothing.
    """
    page = events.page(connection(), **query)
    span = {"start": query["start"], "end": page.end, "limit": query["limit"]}
    return page_response("/events", span, page.after, {"items": json_array(page.documents)})
