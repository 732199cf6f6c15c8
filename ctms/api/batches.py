"""`/ctms/batch`: many contacts in one request."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma
from flask import Response, request

from ctms.api.blueprint import Blueprint, caller_id, connection, require_authorized
from ctms.api.openapi import examples
from ctms.api.parsing import body_limit
from ctms.api.responses import json_response
from ctms.batches import writer
from ctms.batches.items import STATUSES, STORED, BatchItem, BatchItemSchema, BatchResult, parse_item
from ctms.clients import idempotency
from ctms.clients.access import MANAGE_CONTACTS
from ctms.contacts import fields
from ctms.contacts.fields import Message, Schema, StrictSchema
from ctms.contacts.problems import ProblemSchema, problem
from ctms.errors import Conflict, Invalid
from ctms.words import counted

blueprint = Blueprint("Batches", __name__, description="Many contacts in one request")

MAX_ITEMS = 1000
"""Maximum number of items in one request and transaction."""

MAX_BODY_IN_BYTES = 10 * 1024 * 1024
"""Maximum size of the body: 1,000 items of 10 kB."""


class BatchItems(fields.List):
    """A list of items that are loaded one by one later, so that an invalid one does not invalidate the request."""

    default_error_messages = {"too_short": Message("List should have at least 1 item", "too_short")}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any) -> list[Any]:
        if not isinstance(value, list):
            raise self.make_error("invalid")
        if not value:
            raise self.make_error("too_short")
        self.require_short(value)
        return value


class BatchQuery(Schema):
    """Parameters of a batch."""

    atomic = fields.Boolean(
        load_default=False,
        metadata={"description": "Whether to store nothing (409) if not every item can be stored."},
    )


class BatchSchema(StrictSchema):
    """Contacts to write, in their order."""

    items = BatchItems(
        fields.SubDocument(BatchItemSchema),
        max_items=MAX_ITEMS,
        required=True,
        metadata={"description": f"1 to {MAX_ITEMS} items."},
    )


class BatchItemResultSchema(Schema):
    """Result of an item."""

    index = ma.fields.Integer(metadata={"description": "Index of the item in the request, from 0."})
    status = fields.String(
        choices=STATUSES,
        metadata={
            "description": "`created`, `updated` and `unchanged` (everything is stored already) are successful. With"
            " `conflict`, `invalid`, `suppressed` and `not_found`, the item has stored nothing."
        },
    )
    email_id = fields.UUID(
        allow_none=True, metadata={"description": "Id of the contact, null if the item concerns no single one."}
    )
    email_ids = ma.fields.List(
        fields.UUID(), metadata={"description": "With `conflict`, the ids of all contacts that the item names."}
    )
    merged_into = fields.UUID(
        allow_none=True,
        metadata={"description": "Id of the contact that the one with the matched `email_id` was merged into."},
    )
    errors = ma.fields.List(ma.fields.Nested(ProblemSchema))


class BatchResultsSchema(Schema):
    """Results of a batch, in the order of its items."""

    items = ma.fields.List(ma.fields.Nested(BatchItemResultSchema))


class BatchFailureSchema(Schema):
    """Failure of a batch with `atomic=true`; nothing was stored."""

    detail = fields.String()
    items = ma.fields.List(
        ma.fields.Nested(BatchItemResultSchema), metadata={"description": "The items that cannot be stored."}
    )


@blueprint.route("/ctms/batch", methods=["POST"])
@blueprint.operation("write_contacts", errors=(413, 422), parameters=("Idempotency-Key",))
@blueprint.guard(MANAGE_CONTACTS, stamps=True)
@body_limit(MAX_BODY_IN_BYTES)
@blueprint.arguments(BatchQuery(), location="query")
@blueprint.arguments(BatchSchema(), examples=examples.BATCH)
@blueprint.response(207, BatchResultsSchema, description="Result of each item")
@blueprint.alt_response(409, schema=BatchFailureSchema, description="With `atomic=true`: an item cannot be stored")
def write_contacts(query: dict[str, Any], batch: dict[str, Any]) -> Response:
    """Create and update up to 1,000 contacts.

    Each item is stored or refused on its own; with `atomic=true`, all are stored or none. Items that concern the same
    contact take effect in their order. A repeated request with the same `Idempotency-Key` gets the same response for 24
    hours, and has no effect.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        idempotency.check_key(key)
    require_authorized()  # it locks many contacts
    if key is not None:
        earlier = idempotency.begin(connection(), caller_id(), key, _normal_form(query, batch))
        if earlier is not None:
            return json_response(earlier, 207)
    results = [_describe(index, result) for index, result in enumerate(_write(batch["items"]))]
    failed = [result for result in results if result["status"] not in STORED]
    if failed and query["atomic"]:
        error = Conflict(f"Nothing was stored: {counted(len(failed), 'item')} cannot be stored")
        error.extra["items"] = failed
        raise error
    response = json.dumps({"items": results})
    if key is not None:
        idempotency.finish(connection(), caller_id(), key, response)
    return json_response(response, 207)


def _normal_form(query: Any, batch: Any) -> str:
    """Return the request as text, by which a repeated one is recognized."""
    try:
        return json.dumps([query["atomic"], batch["items"]], sort_keys=True)
    except RecursionError:  # it could just be parsed, with a few frames less on the stack
        raise Invalid([problem(["body"], Message("Body should nest less deeply", "recursion_depth"))]) from None


def _write(items: Sequence[Any]) -> list[BatchResult]:
    """Write the valid items, and return the results of all."""
    parsed = [parse_item(raw) for raw in items]
    valid = [one for one in parsed if isinstance(one, BatchItem)]
    written = iter(writer.write(connection(), valid) if valid else ())
    return [one if isinstance(one, BatchResult) else next(written) for one in parsed]


def _describe(index: int, result: BatchResult) -> dict[str, Any]:
    """Return the result of an item for the response; the places of errors start at the body."""
    return {
        "index": index,
        "status": result.status,
        "email_id": None if result.email_id is None else str(result.email_id),
        "email_ids": [str(email_id) for email_id in result.email_ids],
        "merged_into": None if result.merged_into is None else str(result.merged_into),
        "errors": [{**one, "loc": ["body", "items", index, *one["loc"]]} for one in result.problems],
    }
