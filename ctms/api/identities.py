"""`/identities` and `/identity/{email_id}`: the identities of contacts."""

from __future__ import annotations

from typing import Any

from flask import Response

from ctms.api.blueprint import Blueprint, connection, fetch_scalar
from ctms.api.parameters import IdentitiesQuery, contact_id, some_identity
from ctms.api.responses import json_response
from ctms.clients.access import VIEW_CONTACTS
from ctms.contacts import queries, schemas
from ctms.contacts.tombstones import unknown_contact

blueprint = Blueprint("Identities", __name__, description="Identities of contacts")


@blueprint.route("/identities")
@blueprint.operation("find_identities", errors=(422,))
@blueprint.guard(VIEW_CONTACTS)
@blueprint.arguments(IdentitiesQuery(), location="query")
@blueprint.response(200, schemas.IdentitySchema(many=True))
def identities(query: dict[str, Any]) -> Response:
    """Find the identities of the contacts that match all given identities."""
    some_identity(query)
    return json_response(fetch_scalar(queries.identities_of(query)))


@blueprint.route(
    "/identity/<string:email_id>",
    parameters=[
        {
            "in": "path",
            "name": "email_id",
            "description": "The id of the contact.",
            "schema": {"type": "string", "format": "uuid"},
        }
    ],
)
@blueprint.operation("read_identity", errors=(404, 422))
@blueprint.guard(VIEW_CONTACTS)
@blueprint.response(200, schemas.IdentitySchema)
def identity(email_id: str) -> Response:
    """Return the identities of a contact."""
    wanted = contact_id(email_id)
    found = fetch_scalar(queries.identity(wanted))
    if found is None:
        raise unknown_contact(connection(), wanted)
    return json_response(found)
