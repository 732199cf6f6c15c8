"""`/updates`: changed contacts, for clients that mirror them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from ctms.api.blueprint import Blueprint, connection
from ctms.api.parameters import UpdatesQuery
from ctms.api.responses import json_response
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import queries, schemas
from ctms.contacts.documents import json_array
from ctms.settings import app_settings

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
    return json_response(
        f'{{"start":{_json(query["start"])},"end":{_json(page.end)},"limit":{query["limit"]},'
        f'"after":{_json(after)},"next":{_json(_next_link(query, page.end, after))},'
        f'"items":{json_array(page.documents)}}}'
    )


def _next_link(query: dict[str, Any], end: datetime, after: str | None) -> str | None:
    if after is None:
        return None
    parameters = {
        "start": query["start"].isoformat(),
        "end": end.isoformat(),
        "limit": query["limit"],
        "after": after,
    }
    if query["mofo_relevant"] is not None:
        parameters["mofo_relevant"] = str(query["mofo_relevant"]).lower()
    origin = app_settings().server_prefix or request.host_url.rstrip("/")
    return f"{origin}/updates?{urlencode(parameters)}"


def _json(value: str | datetime | None) -> str:
    return json.dumps(value.isoformat() if isinstance(value, datetime) else value)
