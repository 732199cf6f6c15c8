"""`/updates`: changed contacts, for clients that mirror them."""

from __future__ import annotations

from typing import Any

from flask import Response

from ctms.api.blueprint import Blueprint, connection
from ctms.api.feeds import page_response
from ctms.api.parameters import UpdatesQuery
from ctms.clients.access import LIST_CONTACTS
from ctms.contacts import schemas
from ctms.contacts.documents import json_array
from ctms.contacts.updates import page, page_with_deletions

blueprint = Blueprint("Updates", __name__, description="Changed contacts")


@blueprint.route("/updates")
@blueprint.operation("list_updates", errors=(410, 422))
@blueprint.guard(LIST_CONTACTS)
@blueprint.arguments(UpdatesQuery(), location="query")
@blueprint.response(200, schemas.UpdatesSchema)
def updates(query: dict[str, Any]) -> Response:
    """List the contacts that changed from start to end, oldest first.

    The interval is `[start, end)`. `end` in the response is the end of the list: now, the requested `end`, or the start
    of the oldest unfinished write, whichever is earliest. A client that continues from there misses nothing.

    With `deleted=true`, a page lists at most `limit` contacts in all: the changed ones (`items`), those that were
    deleted (`deleted`) and, with `mofo_relevant`, those that no longer have this value (`left`). If `start` is earlier
    than the recorded deletions, the response is 410.
    """
    with_deletions = query.pop("deleted")
    found = (page_with_deletions if with_deletions else page)(connection(), **query)
    span = {"start": query["start"], "end": found.end, "limit": query["limit"]}
    arrays = {"items": json_array(found.documents)}
    if with_deletions:
        arrays["deleted"] = json_array(found.deleted)
        if query["mofo_relevant"] is not None:
            arrays["left"] = json_array(found.left)
    filters = {
        "mofo_relevant": query["mofo_relevant"],
        "deleted": True if with_deletions else None,
        "stale_ok": True if query["stale_ok"] else None,
    }
    return page_response("/updates", span, found.after, arrays, **filters)
