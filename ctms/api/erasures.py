"""`/erasures`: deletion of up to 5,000 contacts at once, and the records of erasures."""

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
from ctms.api.responses import json_response
from ctms.clients.access import DELETE_CONTACTS, VIEW_ERASURES
from ctms.contacts import fields
from ctms.contacts.fields import Fields, StrictSchema, invalid
from ctms.contacts.registry import IDENTITIES
from ctms.erasure import records
from ctms.erasure.erase import ORIGIN_API, ErasureRequest
from ctms.erasure.requests import InvalidAddressesError, erase_requested
from ctms.errors import Invalid, NotFound
from ctms.suppression.fingerprints import NO_KEY, fingerprints

blueprint = Blueprint("Erasures", __name__, description="Deletion of many contacts, and records of erasures")

UNKNOWN = "Unknown erasure"
MAX_CONTACTS = 5000
"""Maximum number of contacts in one request and transaction."""
MAX_KEY_LENGTH = 255

_ID = {
    "in": "path",
    "name": "erasure_id",
    "description": "The id of the erasure.",
    "schema": {"type": "string", "format": "uuid"},
}


class ErasureIdentitiesSchema(StrictSchema):
    """Identities that a contact must match, all of those given; null counts as absent."""

    class Meta(StrictSchema.Meta):
        include: Fields = {name: one.build_request_field(load_default=None) for name, one in IDENTITIES.items()}  # noqa: RUF012

    @ma.post_load
    def given(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Return the given identities. Raises `marshmallow.ValidationError` if there are none."""
        found = {name: value for name, value in data.items() if value not in {None, ""}}
        if not found:
            raise invalid(f"One of these is needed: {', '.join(IDENTITIES)}", "missing")
        return found


class ErasureRequestSchema(StrictSchema):
    """Contacts to erase: at least one, and at most 5,000 in total."""

    emails = fields.List(
        fields.String(255, min_length=1),
        max_items=MAX_CONTACTS,
        metadata={
            "description": "`primary_email` of each contact, in any spelling. Other text is invalid, unless it is"
            " stored as one."
        },
    )
    identities = fields.List(fields.SubDocument(ErasureIdentitiesSchema), max_items=MAX_CONTACTS)
    forget = fields.Boolean(
        load_default=False,
        metadata={"description": "Whether to suppress the addresses, too: no contact can be created with one of them."},
    )
    include_fxa = fields.Boolean(
        load_default=False,
        metadata={
            "description": "Whether to erase also other contacts with one of the addresses as `fxa_primary_email`, or"
            " that lost it in a merge, and the contact that one requested only by `email_id` was merged into. Otherwise"
            " `also_known_in` counts them."
        },
    )

    @ma.post_load
    def wanted(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Combine all into one list. Raises `marshmallow.ValidationError` if there are none or too many."""
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


_UNKNOWN_ITEMS = {"description": "Number of items that matched no contact, without previously erased addresses."}


class ErasureResultSchema(ma.Schema):
    """Result of the deletion here; backends and deletion handlers follow."""

    id = fields.UUID(metadata={"description": "Id of the record: `GET /erasures/{id}`."})
    contacts = ma.fields.Integer(metadata={"description": "Number of deleted contacts."})
    unknown = ma.fields.Integer(metadata=_UNKNOWN_ITEMS)  # type: ignore[assignment]  # no option of the schema
    also_known_in = ma.fields.Integer(
        allow_none=True,
        metadata={
            "description": "Number of other contacts with one of the addresses as `fxa_primary_email`, or that lost it"
            " in a merge, or that one requested only by `email_id` was merged into. They are kept, unless `include_fxa`"
            " is true. Null for erasures of earlier versions."
        },
    )


class ErasureHandlerSchema(ma.Schema):
    """Progress of a deletion handler: numbers of contacts, and the last reason why one was parked or delayed.

    The reason is null once nothing is pending, parked or being verified.
    """

    name = fields.String()
    installed = fields.Boolean(
        metadata={"description": "False if no plugin declares the handler any more, so that its work waits."}
    )
    pending = ma.fields.Integer()
    done = ma.fields.Integer(metadata={"description": "Erased, as confirmed by the other system."})
    verified = ma.fields.Integer(metadata={"description": "Verified as erased."})
    parked = ma.fields.Integer(metadata={"description": "Refused; an operator must act."})
    reason = fields.String(load_default=None)
    started_at = fields.Timestamp()
    changed_at = fields.Timestamp()


class ErasureBackendSchema(ma.Schema):
    """Progress of a backend: numbers of contacts, and the last reason why one was parked or delayed.

    The reason is null once nothing is pending or parked.
    """

    name = fields.String()
    installed = fields.Boolean(
        metadata={"description": "False if no plugin declares the backend any more, so that its work waits."}
    )
    pending = ma.fields.Integer(metadata={"description": "Not yet deleted there."})
    done = ma.fields.Integer(metadata={"description": "Deleted there, as confirmed by the backend."})
    parked = ma.fields.Integer(metadata={"description": "Refused; an operator must act."})
    reason = fields.String(load_default=None)
    started_at = fields.Timestamp()
    changed_at = fields.Timestamp()


class ErasureSchema(ma.Schema):
    """Record of an erasure, without personal data."""

    id = fields.UUID()
    requested_at = fields.Timestamp()
    requested_by = fields.String(
        metadata={
            "description": "Requester: `client:` and the id of an API client, `operator:` and a name, or `worker`."
        }
    )
    origin = fields.String(
        metadata={
            "description": "Origin of the request: `delete` and `api` for the API, `command` for `flask ctms`,"
            " `retention:` and the name of a rule for retention."
        }
    )
    forget = fields.Boolean(metadata={"description": "Whether the addresses were suppressed, too."})
    contacts = ma.fields.Integer()
    unknown = ma.fields.Integer(metadata=_UNKNOWN_ITEMS)  # type: ignore[assignment]  # no option of the schema
    also_known_in = ma.fields.Integer(
        allow_none=True,
        metadata={
            "description": "Number of other contacts that had one of the addresses as `fxa_primary_email` and were"
            " kept. Null for erasures of earlier versions."
        },
    )
    status = fields.String(
        choices=records.STATUSES,
        metadata={
            "description": "Status of the erasure: the first of `parked`, `pending` and `verifying` that applies to any"
            " deletion handler or backend, also of erasures in `follows`, or `done` if none of their work is left."
        },
    )
    follows = ma.fields.List(
        fields.UUID(),
        metadata={
            "description": "Earlier erasures of the same addresses that were not `done` when this one was requested."
            " Their contacts no longer exist here, so only they show the progress."
        },
    )
    handlers = ma.fields.List(ma.fields.Nested(ErasureHandlerSchema))
    backends = ma.fields.List(ma.fields.Nested(ErasureBackendSchema))


def _place(emails: int, position: int, name: str, problem: str) -> dict[str, Any]:
    """Return the error of an item, by its position among `emails` and `identities` together."""
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

    @blueprint.operation("erase_contacts", errors=(413, 422), parameters=("Idempotency-Key",))
    @blueprint.guard(DELETE_CONTACTS, stamps=True)
    @blueprint.arguments(ErasureRequestSchema(), examples=examples.ERASE)
    @blueprint.response(202, ErasureResultSchema, headers={"Location": "Location"})
    def post(self, asked: dict[str, Any]) -> Response:
        """Delete all data about up to 5,000 addresses, or about contacts that match identities.

        The response is sent when the contacts are deleted here; deletion handlers and backends follow soon. A repeated
        request with the same `Idempotency-Key` gets the same response and has no effect.
        """
        key = request.headers.get("Idempotency-Key", "")
        if len(key) > MAX_KEY_LENGTH:
            message = f"String should have at most {MAX_KEY_LENGTH} characters"
            raise Invalid([{"loc": ["header", "Idempotency-Key"], "msg": message, "type": "string_too_long"}])
        if asked["forget"] and not fingerprints().available:
            raise Invalid([{"loc": ["body", "forget"], "msg": NO_KEY, "type": "no_erasure_key"}])
        require_authorized()
        forget, include_fxa = asked["forget"], asked["include_fxa"]
        order = ErasureRequest(by=f"client:{caller_id()}", origin=ORIGIN_API, forget=forget, include_fxa=include_fxa)
        try:
            result = erase_requested(connection(), order, asked["wanted"], key)
        except InvalidAddressesError as error:
            raise Invalid([_place(asked["emails"], *problem) for problem in error.problems]) from None
        body = {**result._asdict(), "id": str(result.id)}
        return json_response(json.dumps(body), 202, {"Location": f"/erasures/{result.id}"})


@blueprint.route("/erasures/<string:erasure_id>", parameters=[_ID])
@blueprint.operation("read_erasure", errors=(404, 422))
@blueprint.guard(VIEW_ERASURES)
@blueprint.response(200, ErasureSchema)
def erasure(erasure_id: str) -> Response:
    """Return the record of an erasure: its requester, and the progress of each deletion handler and backend."""
    wanted: UUID = path_id("erasure_id", erasure_id)
    found = fetch_scalar(records.record(wanted))
    if found is None:
        raise NotFound(UNKNOWN)
    return json_response(found)
