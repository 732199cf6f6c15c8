"""`/updates`: changed contacts, for clients that mirror them."""

from __future__ import annotations

from typing import Any

from flask import Response

from ctms.api.blueprint import Blueprint, connection
from ctms.api.feeds import next_link, page_json
from ctms.api.parameters import UpdatesQuery
from ctms.api.responses import json_response
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import queries, schemas
from ctms.contacts.documents import json_array

blueprint = Blueprint("Updates", __name__, description="Changed contacts")


@blueprint.route("/updates")
@blueprint.operation("list_updates", errors=(422,))
@blueprint.guard(VIEW_CONTACTS)
@blueprint.arguments(UpdatesQuery(), location="query")
@blueprint.response(200, schemas.UpdatesSchema)
def updates(query: dict[str, Any]) -> Response:
    """List the contacts that changed in `[start, end)`, oldest first.

    `end` in the response is the end of the list: now, the requested `end`, or the start of the oldest unfinished
    write, whichever is earliest. A client that continues from there misses nothing.
    """
    page = queries.page(connection(), **query)
    after = page.after.to_cursor() if page.after else None
    link = next_link(
        "/updates",
        after,
        {
            "start": query["start"],
            "end": page.end,
            "limit": query["limit"],
            "mofo_relevant": query["mofo_relevant"],
        },
    )
    members = {"start": query["start"], "end": page.end, "limit": query["limit"], "after": after, "next": link}
    return json_response(page_json(members, items=json_array(page.documents)))
