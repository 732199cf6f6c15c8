"""`/ctms`: contacts."""

from __future__ import annotations

from typing import Any

from flask import Response
from flask.views import MethodView

from ctms.api import preconditions
from ctms.api.blueprint import Blueprint, answer, connection
from ctms.api.parameters import IdentitiesQuery, contact_id, some_identity
from ctms.api.preconditions import contact_response
from ctms.api.responses import json_text
from ctms.clients.access import DELETE, MANAGE, VIEW
from ctms.contacts import commands, queries, schemas
from ctms.contacts.documents import array
from ctms.errors import Invalid, NotFound

blueprint = Blueprint("Contacts", __name__, description="Contacts with their newsletters and waitlists")


@blueprint.route("/ctms")
class Contacts(MethodView):
    """All contacts."""

    @blueprint.guard(VIEW)
    @blueprint.arguments(IdentitiesQuery(), location="query")
    @blueprint.response(200, schemas.ListedContactSchema(many=True))
    def get(self, identities: dict[str, Any]) -> Response:
        """Find the contacts that match all given identities."""
        some_identity(identities)
        return json_text(answer(queries.documents(identities)))

    @blueprint.guard(MANAGE)
    @blueprint.arguments(schemas.ContactSchema())
    @blueprint.response(201, schemas.ContactDocumentSchema)
    def post(self, contact: dict[str, Any]) -> Response:
        """Create a contact; the same one again is no error."""
        created = commands.create(connection(), contact)
        return contact_response(
            created.document, 201 if created.new else 200, {"Location": f"/ctms/{created.email_id}"}
        )


@blueprint.route("/ctms/<path:email_id>")
class Contact(MethodView):
    """One contact."""

    @blueprint.guard(VIEW)
    @blueprint.response(200, schemas.ContactDocumentSchema)
    def get(self, email_id: str) -> Response:
        """Return a contact."""
        document = answer(queries.document(contact_id(email_id)))
        if document is None:
            raise NotFound(commands.UNKNOWN)
        return contact_response(document)

    @blueprint.guard(MANAGE)
    @blueprint.arguments(schemas.ContactPutSchema())
    @blueprint.response(201, schemas.ContactDocumentSchema)
    def put(self, contact: dict[str, Any], email_id: str) -> Response:
        """Create a contact, or put it in the place of the one before."""
        wanted = contact_id(email_id)
        if contact["email"]["email_id"] != wanted:
            raise Invalid("email_id in path must match email_id in contact")
        if preconditions.is_conditional():
            preconditions.require_match(commands.lock(connection(), wanted))
        document = commands.replace(connection(), wanted, contact)
        return contact_response(document, 201, {"Location": f"/ctms/{wanted}"})

    @blueprint.guard(MANAGE)
    @blueprint.arguments(schemas.ContactPatchSchema())
    @blueprint.response(200, schemas.ContactDocumentSchema)
    def patch(self, patch: dict[str, Any], email_id: str) -> Response:
        """Change what is given, and nothing else."""
        wanted = contact_id(email_id)
        if patch.get("email", {}).get("email_id", wanted) != wanted:
            raise Invalid("cannot change email_id")
        if preconditions.is_conditional():
            document = commands.lock(connection(), wanted)
            if document is None:
                raise NotFound(commands.UNKNOWN)
            preconditions.require_match(document)
        return contact_response(commands.change(connection(), wanted, patch))

    @blueprint.guard(DELETE)
    @blueprint.response(200, schemas.IdentitySchema(many=True))
    def delete(self, email_id: str) -> Response:
        """Delete everything about an address: the path names the `primary_email`, in any case."""
        if "\0" in email_id:  # no text in PostgreSQL holds it, not even a question
            raise NotFound(f"email {email_id} not found!")
        if preconditions.is_conditional():
            for document in commands.lock_address(connection(), email_id):
                preconditions.require_match(document)
        gone = commands.delete(connection(), email_id)
        if not gone:
            raise NotFound(f"email {email_id} not found!")
        return json_text(array(gone))
