"""`/ctms/{email_id}/merge`: merging duplicate contacts."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any
from uuid import UUID

import marshmallow as ma
from flask import Response

from ctms.api import preconditions
from ctms.api.blueprint import Blueprint, connection, require_authorized
from ctms.api.openapi import examples
from ctms.api.parameters import contact_id
from ctms.api.responses import json_response
from ctms.clients.access import MERGE_CONTACTS
from ctms.contacts import fields, merging, queries, schemas
from ctms.contacts.fields import Schema, StrictSchema

blueprint = Blueprint("Merges", __name__, description="Merging of duplicate contacts")

_ID = {
    "in": "path",
    "name": "email_id",
    "description": "The id of the contact that is kept.",
    "schema": {"type": "string", "format": "uuid"},
}


class MergeRequestSchema(StrictSchema):
    """Contact to merge into the one of the path."""

    source = fields.UUID(required=True, data_key="from", metadata={"description": "Id of the contact that is deleted."})
    dry_run = fields.Boolean(
        load_default=False, metadata={"description": "Whether to return the result without storing it."}
    )


class FilledFieldSchema(Schema):
    """Field that was blank, and has the value of the deleted contact."""

    part = fields.String(metadata={"description": "Name of the sub-document."})
    field = fields.String()


class MergedSubscriptionSchema(Schema):
    """Newsletter or waitlist of the deleted contact."""

    part = fields.String(metadata={"description": "Name of the list."})
    name = fields.String()
    decided_by = fields.UUID(metadata={"description": "Id of the contact whose entry counts."})
    subscribed = fields.Boolean()


class MergeConflictSchema(Schema):
    """Value of the deleted contact that the other one does not have, because it has another value."""

    part = fields.String(metadata={"description": "Name of the sub-document."})
    field = fields.String()
    value = ma.fields.Raw(metadata={"description": "The value. It is stored nowhere any more."})


class MergeSchema(Schema):
    """Result of a merge."""

    dry_run = fields.Boolean(metadata={"description": "True if nothing was stored."})
    merged_from = fields.UUID(metadata={"description": "Id of the deleted contact."})
    contact = fields.SubDocument(schemas.ListedContactSchema)
    filled = ma.fields.List(ma.fields.Nested(FilledFieldSchema))
    subscriptions = ma.fields.List(ma.fields.Nested(MergedSubscriptionSchema))
    conflicts = ma.fields.List(ma.fields.Nested(MergeConflictSchema))


@blueprint.route("/ctms/<string:email_id>/merge", methods=["POST"], parameters=[_ID])
@blueprint.operation("merge_contact", errors=(404, 412, 413, 422), parameters=("If-Match",))
@blueprint.guard(MERGE_CONTACTS, stamps=True)
@blueprint.arguments(MergeRequestSchema(), examples=examples.MERGE)
@blueprint.response(200, MergeSchema)
def merge(request: dict[str, Any], email_id: str) -> Response:
    """Merge a duplicate into a contact, and delete the duplicate.

    The values of the contact are kept, and blank ones are filled. Of each subscription the latest decision counts, and
    any opt-out stays. The history moves to the contact. The id of the duplicate then returns 404 with `merged_into`.
    """
    target, source, dry_run = contact_id(email_id), request["source"], request["dry_run"]
    require_authorized()  # it locks two contacts
    with connection().transaction(force_rollback=True) if dry_run else nullcontext():
        pair = merging.lock(connection(), target, source)
        if precondition := preconditions.find_precondition():
            precondition(queries.documents_by_id(connection(), [target])[target])
        merged = merging.merge(connection(), pair)
    return json_response(_render(merged, target, source, dry_run=dry_run))


def _render(merged: merging.MergeResult, target: UUID, source: UUID, *, dry_run: bool) -> str:
    members = merging.describe(merged.plan, target, source)
    text = json.dumps({"dry_run": dry_run, "merged_from": str(source), **members}, default=str)
    return f'{text[:-1]},"contact":{merged.document}}}'
