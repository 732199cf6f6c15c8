"""`/erasures`: deleting up to 5,000 contacts at once, and what became of a deletion."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import marshmallow as ma
from flask import Response, request
from flask.views import MethodView

from ctms.api.blueprint import Blueprint, caller_id, connection, fetch_scalar, require_authorized
from ctms.api.openapi import examples
from ctms.api.parameters import path_id
from ctms.api.responses import json_text
from ctms.clients.access import DELETE_CONTACTS, VIEW_ERASURES
from ctms.contacts import fields
from ctms.contacts.fields import invalid
from ctms.contacts.queries import IDENTITIES
from ctms.contacts.schemas import Schema
from ctms.erasure import records
from ctms.erasure.erase import BY_API, Order
from ctms.erasure.requests import InvalidAddressesError, erase_requested
from ctms.errors import Invalid, NotFound
from ctms.suppression.fingerprints import NO_KEY, fingerprints

blueprint = Blueprint("Erasures", __name__, description="Deleting many contacts, and the records of deletions")

UNKNOWN = "Unknown erasure"
MAX_CONTACTS = 5000
"""Few enough for one request and one transaction."""
LONGEST_KEY = 255

_ID = {
    "in": "path",
    "name": "erasure_id",
    "description": "The id of the erasure.",
    "schema": {"type": "string", "format": "uuid"},
}


class _Strict(Schema):
    """What is to be deleted is not guessed: a member with a wrong name is no member less."""

    error_messages = {**Schema.error_messages, "unknown": fields.Message("Unknown field", "extra_forbidden")}  # noqa: RUF012

    class Meta:
        unknown = ma.RAISE


class ErasureIdentitiesSchema(_Strict):
    """By which identities to find contacts: all that are given must match, and null is not given."""

    email_id = fields.UUID(load_default=None)
    primary_email = fields.String(load_default=None)
    basket_token = fields.UUID(load_default=None)
    sfdc_id = fields.String(load_default=None)
    mofo_contact_id = fields.String(load_default=None)
    mofo_email_id = fields.String(load_default=None)
    amo_user_id = fields.String(load_default=None)
    fxa_id = fields.String(load_default=None)
    fxa_primary_email = fields.String(load_default=None)

    @ma.post_load
    def given(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return what is given. Raises `marshmallow.ValidationError` when nothing is."""
        found = {name: value for name, value in data.items() if value not in {None, ""}}
        if not found:
            raise invalid(f"One of these is needed: {', '.join(IDENTITIES)}", "missing")
        return found


class ErasureRequestSchema(_Strict):
    """Whom to erase: at least one, and at most 5,000 in all."""

    emails = fields.List(
        fields.String(255, min_length=1),
        max_items=MAX_CONTACTS,
        metadata={
            "description": "Their `primary_email`, in any spelling; nothing else, unless the database holds it as one."
        },
    )
    identities = fields.List(fields.SubDocument(ErasureIdentitiesSchema), max_items=MAX_CONTACTS)
    forget = fields.Boolean(
        load_default=False,
        metadata={"description": "Suppress the addresses, too: no contact with one of them can be made any more."},
    )
    include_fxa = fields.Boolean(
        load_default=False,
        metadata={
            "description": "Erase also the other contacts that carry one of the addresses as `fxa_primary_email`, which"
            " `also_known_in` counts otherwise."
        },
    )

    @ma.post_load
    def wanted(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Put all into one list. Raises `marshmallow.ValidationError` when they are too many, or none."""
        wanted = [{"primary_email": address} for address in data.get("emails", ())]
        wanted += data.get("identities", ())
        if not wanted:
            raise invalid("`emails` or `identities` should name somebody", "missing")
        if len(wanted) > MAX_CONTACTS:
            raise invalid(f"`emails` and `identities` should have at most {MAX_CONTACTS} items together", "too_long")
        return {
            "wanted": wanted,
            "emails": len(data.get("emails", ())),
            "forget": data["forget"],
            "include_fxa": data["include_fxa"],
        }


class ErasureResultSchema(ma.Schema):
    """What has been erased here; other systems hear of it next."""

    id = fields.UUID(metadata={"description": "Names the record: `GET /erasures/{id}`."})
    contacts = ma.fields.Integer(metadata={"description": "How many contacts are gone."})
    unknown = ma.fields.Integer(  # type: ignore[assignment]  # no option of the schema
        metadata={"description": "How many items named nobody, but for addresses that were erased before."}
    )
    also_known_in = ma.fields.Integer(
        allow_none=True,
        metadata={
            "description": "The number of other contacts that carry one of the addresses as `fxa_primary_email`. They"
            " stay, unless `include_fxa` is true. Null of erasures by earlier versions."
        },
    )


class ErasureHandlerSchema(ma.Schema):
    """How far a deletion handler is: numbers of contacts, and the last reason why it was not done with one.

    The reason is null once nothing is pending, parked or being verified.
    """

    name = fields.String()
    installed = fields.Boolean(
        metadata={"description": "False when no plugin declares the handler any more: nobody deletes."}
    )
    pending = ma.fields.Integer()
    done = ma.fields.Integer(metadata={"description": "Erased, as the other system says."})
    verified = ma.fields.Integer(metadata={"description": "Looked for, and not found any more."})
    parked = ma.fields.Integer(metadata={"description": "Refused; an operator has to see to it."})
    reason = fields.String(load_default=None)
    started_at = fields.Timestamp()
    changed_at = fields.Timestamp()


class ErasureBackendSchema(ma.Schema):
    """The progress of a backend: numbers of contacts, and the last reason why one was not deleted there.

    The reason is null once nothing is pending or parked.
    """

    name = fields.String()
    installed = fields.Boolean(
        metadata={"description": "False when no plugin declares the backend any more: nobody deletes."}
    )
    pending = ma.fields.Integer(metadata={"description": "Still to be deleted there."})
    done = ma.fields.Integer(metadata={"description": "Deleted there, as the backend says."})
    parked = ma.fields.Integer(metadata={"description": "Refused; an operator has to see to it."})
    reason = fields.String(load_default=None)
    started_at = fields.Timestamp()
    changed_at = fields.Timestamp()


class ErasureSchema(ma.Schema):
    """The record of a deletion. It names nobody."""

    id = fields.UUID()
    requested_at = fields.Timestamp()
    requested_by = fields.String(
        metadata={"description": "`client:` and the id of an API client, or `operator:` and a name."}
    )
    origin = fields.String(
        metadata={"description": "What asked for it: `delete` and `api` are the API's, `command` is `flask ctms`."}
    )
    forget = fields.Boolean(metadata={"description": "True when the addresses were suppressed, too."})
    contacts = ma.fields.Integer()
    unknown = ma.fields.Integer(  # type: ignore[assignment]  # no option of the schema
        metadata={"description": "How many items named nobody, but for addresses that were erased before."}
    )
    also_known_in = ma.fields.Integer(
        allow_none=True,
        metadata={
            "description": "The number of other contacts that carried one of the addresses as `fxa_primary_email` and"
            " stayed. Null of erasures by earlier versions."
        },
    )
    status = fields.String(
        choices=records.STATUSES,
        metadata={
            "description": "The first of these that is true of any deletion handler or backend: a contact is parked,"
            " pending, being verified; or `done`, when nothing is left anywhere."
        },
    )
    handlers = ma.fields.List(ma.fields.Nested(ErasureHandlerSchema))
    backends = ma.fields.List(ma.fields.Nested(ErasureBackendSchema))


def _place(emails: int, position: int, name: str, problem: str) -> dict[str, Any]:
    """Return the error of an item at this position among `emails` and `identities` together."""
    place = ["emails", position] if position < emails else ["identities", position - emails, name]
    return {
        "loc": ["body", *place],
        "msg": f"Input should be an e-mail address: {problem}",
        "type": "value_error",
    }


@blueprint.route("/erasures")
class Erasures(MethodView):
    """All erasures."""

    init_every_request = False

    @blueprint.operation("erase_contacts", errors=(413, 422), parameters=["Idempotency-Key"])
    @blueprint.guard(DELETE_CONTACTS)
    @blueprint.arguments(ErasureRequestSchema(), examples=examples.ERASE)
    @blueprint.response(202, ErasureResultSchema, headers={"Location": "Location"})
    def post(self, asked: dict[str, Any]) -> Response:
        """Delete everything about up to 5,000 addresses, or about who matches identities.

        It is done here when the answer comes; deletion handlers and backends follow, soon. A request that is
        sent again with its `Idempotency-Key` gets the same answer and does nothing.
        """
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > LONGEST_KEY:
            message = f"String should have at most {LONGEST_KEY} characters"
            raise Invalid([{"loc": ["header", "Idempotency-Key"], "msg": message, "type": "string_too_long"}])
        if asked["forget"] and not fingerprints().available:
            raise Invalid([{"loc": ["body", "forget"], "msg": NO_KEY, "type": "no_erasure_key"}])
        require_authorized()
        forget, include_fxa = asked["forget"], asked["include_fxa"]
        order = Order(by=f"client:{caller_id()}", origin=BY_API, forget=forget, include_fxa=include_fxa)
        try:
            result = erase_requested(connection(), order, asked["wanted"], key)
        except InvalidAddressesError as error:
            raise Invalid([_place(asked["emails"], *problem) for problem in error.problems]) from None
        body = {**result._asdict(), "id": str(result.id)}
        return json_text(json.dumps(body), 202, {"Location": f"/erasures/{result.id}"})


@blueprint.route("/erasures/<string:erasure_id>", parameters=[_ID])
@blueprint.operation("read_erasure", errors=(404, 422))
@blueprint.guard(VIEW_ERASURES)
@blueprint.response(200, ErasureSchema)
def erasure(erasure_id: str) -> Response:
    """Return the record of an erasure: who asked for it, and the progress of each deletion handler and backend."""
    wanted: UUID = path_id("erasure_id", erasure_id)
    found = fetch_scalar(records.record(wanted))
    if found is None:
        raise NotFound(UNKNOWN)
    return json_text(found)
