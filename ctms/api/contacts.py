"""`/ctms`: contacts."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView

from ctms.api import preconditions
from ctms.api.blueprint import Blueprint, caller_id, connection, fetch_scalar
from ctms.api.openapi import examples
from ctms.api.parameters import AddressQuery, IdentitiesQuery, contact_id, some_identity
from ctms.api.parsing import rules_as_problems
from ctms.api.preconditions import contact_response
from ctms.api.responses import json_response
from ctms.clients.access import DELETE_CONTACTS, MANAGE_CONTACTS, VIEW_CONTACTS
from ctms.contacts import accounts, commands, queries, removal, schemas, upserts
from ctms.contacts.documents import json_array
from ctms.contacts.stored_documents import is_enabled
from ctms.contacts.tombstones import unknown_contact
from ctms.erasure.erase import ORIGIN_DELETE, ErasureRequest, erase
from ctms.errors import Invalid, NotFound
from ctms.suppression.fingerprints import fingerprints

blueprint = Blueprint("Contacts", __name__, description="Contacts with their newsletters and waitlists")

_STATE = {"ETag": "ETag"}
_PLACE = {"Location": "Location", **_STATE}
_DELETED = {"Erasure-Id": "Erasure-Id", "Also-Known-In": "Also-Known-In"}
_ID = {
    "in": "path",
    "name": "email_id",
    "description": "The id of the contact.",
    "schema": {"type": "string", "format": "uuid"},
}
_ADDRESS = {
    **_ID,
    "required": True,
    "description": "The `primary_email` of the contact, in any spelling (not an id).",
    "schema": {"type": "string", "minLength": 1},
}


@blueprint.route("/ctms")
class Contacts(MethodView):
    """All contacts."""

    init_every_request = False

    @blueprint.operation("find_contacts", errors=(422,))
    @blueprint.guard(VIEW_CONTACTS)
    @blueprint.arguments(IdentitiesQuery(), location="query")
    @blueprint.response(200, schemas.ListedContactSchema(many=True))
    def get(self, identities: dict[str, Any]) -> Response:
        """Find the contacts that match all given identities."""
        some_identity(identities)
        documents = fetch_scalar(queries.stored_documents(identities)) if is_enabled() else None
        if documents is None:
            documents = fetch_scalar(queries.documents(identities))
        return json_response(documents)

    @blueprint.operation("create_contact", errors=(409, 413, 422))
    @blueprint.guard(MANAGE_CONTACTS, stamps=True)
    @blueprint.arguments(schemas.ContactSchema(), examples=examples.CREATE)
    @blueprint.response(201, schemas.ContactDocumentSchema, headers=_PLACE)
    @blueprint.alt_response(
        200, schema=schemas.ContactDocumentSchema, description="The same contact exists already", headers=_PLACE
    )
    def post(self, contact: dict[str, Any]) -> Response:
        """Create a contact (idempotent)."""
        with rules_as_problems():
            created = commands.create(connection(), contact)
        return contact_response(
            created.document, 201 if created.new else 200, {"Location": f"/ctms/{created.email_id}"}
        )

    @blueprint.operation("upsert_contact", errors=(409, 412, 413, 422), parameters=("If-Match",))
    @blueprint.guard(MANAGE_CONTACTS, stamps=True)
    @blueprint.arguments(AddressQuery(), location="query")
    @blueprint.arguments(schemas.ContactSchema(), examples=examples.CREATE)
    @blueprint.response(201, schemas.ContactDocumentSchema, headers=_PLACE)
    @blueprint.alt_response(
        200, schema=schemas.ContactDocumentSchema, description="The contact existed and was replaced", headers=_PLACE
    )
    def put(self, query: dict[str, Any], contact: dict[str, Any]) -> Response:
        """Create or replace the contact with an address.

        As `PUT /ctms/{email_id}`, it replaces everything. To change only what is given, use `POST /ctms/batch`.
        """
        with rules_as_problems():
            written = upserts.replace_by_address(
                connection(), query["primary_email"], contact, preconditions.find_precondition()
            )
        return contact_response(
            written.document, 201 if written.new else 200, {"Location": f"/ctms/{written.email_id}"}
        )


@blueprint.route("/ctms/<path:email_id>", parameters=[_ID])
class Contact(MethodView):
    """One contact."""

    init_every_request = False

    @blueprint.operation("read_contact", errors=(404, 422), parameters=("If-None-Match",))
    @blueprint.guard(VIEW_CONTACTS)
    @blueprint.response(200, schemas.ContactDocumentSchema, headers=_STATE)
    @blueprint.alt_response(304, description="Not modified", headers=_STATE)
    def get(self, email_id: str) -> Response:
        """Return a contact."""
        wanted = contact_id(email_id)
        document = fetch_scalar(queries.stored_document(wanted)) if is_enabled() else None
        if document is None:
            document = fetch_scalar(queries.document(wanted))
        if document is None:
            raise unknown_contact(connection(), wanted)
        return contact_response(document)

    @blueprint.operation("put_contact", errors=(409, 412, 413, 422), parameters=("If-Match",))
    @blueprint.guard(MANAGE_CONTACTS, stamps=True)
    @blueprint.arguments(schemas.ContactPutSchema(), examples=examples.PUT)
    @blueprint.response(201, schemas.ContactDocumentSchema, headers=_PLACE)
    def put(self, contact: dict[str, Any], email_id: str) -> Response:
        """Create or replace a contact."""
        wanted = contact_id(email_id)
        if contact["email"]["email_id"] != wanted:
            raise Invalid("email_id in path must match email_id in contact")
        with rules_as_problems():
            document = commands.replace(connection(), wanted, contact, preconditions.find_precondition())
        return contact_response(document, 201, {"Location": f"/ctms/{wanted}"})

    @blueprint.operation("patch_contact", errors=(404, 409, 412, 413, 422), parameters=("If-Match",))
    @blueprint.guard(MANAGE_CONTACTS, stamps=True)
    @blueprint.arguments(schemas.ContactPatchSchema(), examples=examples.PATCH)
    @blueprint.response(200, schemas.ContactDocumentSchema, headers=_STATE)
    def patch(self, patch: dict[str, Any], email_id: str) -> Response:
        """Update a contact partially."""
        wanted = contact_id(email_id)
        if patch.get("email", {}).get("email_id", wanted) != wanted:
            raise Invalid("cannot change email_id")
        with rules_as_problems():
            document = commands.update(connection(), wanted, patch, preconditions.find_precondition())
        return contact_response(document)

    @blueprint.operation("delete_contact", errors=(404, 412), parameters=(_ADDRESS, "If-Match"))
    @blueprint.guard(DELETE_CONTACTS, stamps=True)
    @blueprint.response(200, schemas.IdentitySchema(many=True), headers=_DELETED)
    def delete(self, email_id: str) -> Response:
        """Delete all data about an address, which the path contains in any spelling.

        Other contacts with the address as `fxa_primary_email`, or that lost it in a merge, are kept; the header
        `Also-Known-In` counts them. If no contact has the address as its own, `also_known_in` of the error does.
        """
        if "\0" in email_id:  # PostgreSQL accepts no such text, not even in a query
            raise NotFound(f"email {email_id} not found!")
        others = accounts.count(connection(), email_id, fingerprints().of(email_id))
        found = removal.lock_address(connection(), email_id)
        (also_known_in,) = others.fetchone() or (0,)
        if not found:
            # Counted again: while the lock was awaited, a merge may have moved the address to another contact.
            (also_known_in,) = accounts.count(connection(), email_id, fingerprints().of(email_id)).fetchone() or (0,)
            elsewhere = {"also_known_in": also_known_in} if also_known_in else {}
            raise NotFound(f"email {email_id} not found!", **elsewhere)
        if precondition := preconditions.find_precondition():
            for document in queries.documents_by_id(connection(), [one.email_id for one in found]).values():
                precondition(document)
        erasure = ErasureRequest(by=f"client:{caller_id()}", origin=ORIGIN_DELETE)
        erase(connection(), erasure, found, also_known_in=also_known_in)
        headers = {"Erasure-Id": str(erasure.id), "Also-Known-In": str(also_known_in)}
        return json_response(json_array([one.identities for one in found]), headers=headers)
