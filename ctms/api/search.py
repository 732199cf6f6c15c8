"""`POST /ctms/search`: the contacts that match a condition."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import marshmallow as ma
import psycopg
from flask import Response

from ctms.api.blueprint import Blueprint, connection
from ctms.api.conditions import ConditionField
from ctms.api.openapi import examples
from ctms.api.parameters import Limit
from ctms.api.responses import json_response
from ctms.clients.access import SEARCH_CONTACTS
from ctms.compression import compress
from ctms.contacts import fields
from ctms.contacts.documents import MEMBERS, json_array, sparse_document
from ctms.contacts.fields import StrictSchema, invalid
from ctms.contacts.schemas import SparseContactSchema
from ctms.database.replicas import read_replica
from ctms.errors import Invalid, Unavailable
from ctms.search import pages

blueprint = Blueprint("Search", __name__, description="Contacts that match a condition")

TOO_SLOW = "The search takes too long: add a test that fewer contacts match, or ask for fewer contacts"


def _parse_cursor(text: str) -> UUID:
    try:
        return pages.from_cursor(text)
    except ValueError as error:
        raise invalid("Input should be the `after` of a page", "cursor") from error


class SearchRequestSchema(StrictSchema):
    """Search for contacts."""

    filter = ConditionField(required=True)
    fields_ = fields.List(
        fields.String(choices=MEMBERS),
        max_items=len(MEMBERS),
        data_key="fields",
        attribute="fields",
        load_default=None,
        metadata={
            "description": "Parts of the contacts, or members of parts, that the response has. `email.email_id` and the"
            " names of entries are always there. All if missing."
        },
    )
    limit = Limit(load_default=100)
    after = fields.String(
        load_default=None, post_load=_parse_cursor, metadata={"description": "`after` of the previous page."}
    )
    count = fields.Boolean(
        load_default=False, metadata={"description": "Whether to count all contacts that match, on any page."}
    )


class SearchCountSchema(ma.Schema):
    """Number of contacts that match."""

    value = ma.fields.Integer()
    exact = ma.fields.Boolean(
        metadata={"description": "False for an estimate: more than 100,000 contacts match, or counting takes long."}
    )


class SearchPageSchema(ma.Schema):
    """Page of contacts that match a condition, by id."""

    class Meta:
        optional = ("count",)

    limit = ma.fields.Integer()
    after = fields.String(
        allow_none=True,
        metadata={"description": "`after` of the next page; null for the last page. A page may be short, or empty."},
    )
    count = ma.fields.Nested(SearchCountSchema, metadata={"description": "With `count`."})
    items = ma.fields.List(ma.fields.Nested(SparseContactSchema))


@blueprint.route("/ctms/search", methods=["POST"])
@blueprint.operation("search_contacts", errors=(413, 422))
@blueprint.guard(SEARCH_CONTACTS, reads=True)
@blueprint.arguments(SearchRequestSchema(), examples=examples.SEARCH)
@blueprint.response(200, SearchPageSchema)
def search(wanted: dict[str, Any]) -> Response:
    """List the contacts that match a condition, by id.

    A page has at most `limit` contacts. It may have fewer, or none, before the last one: a page looks at a limited
    number of contacts. Repeat the request with its `after` until that is null. A contact that matches throughout is
    listed exactly once.

    A condition that no index serves is refused.
    """
    acquired = connection()
    condition, chosen = wanted.pop("filter"), wanted.pop("fields")
    document = None if chosen is None else sparse_document(chosen)
    try:
        now = datetime.now(UTC)
        found = read_replica(
            acquired, lambda source: pages.search(source, condition, **wanted, now=now, document=document)
        )
    except pages.UnindexedError as error:
        problem = {"loc": ["body", "filter", *error.place], "msg": error.problem, "type": "condition_not_indexed"}
        raise Invalid([problem]) from None
    except psycopg.errors.QueryCanceled:
        raise Unavailable(TOO_SLOW) from None
    after = None if found.after is None else pages.to_cursor(found.after)
    count = {} if found.count is None else {"count": found.count._asdict()}
    head = json.dumps({"limit": wanted["limit"], "after": after, **count})
    return compress(json_response(f'{head[:-1]}, "items": {json_array(found.documents)}}}'))
