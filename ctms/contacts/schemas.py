"""Schemas of whole contacts in requests and responses, from the parts and identities of the registry.

The database renders the documents of responses (`documents`); a test compares real responses with these schemas.
A `Patch` schema is its namesake without required members and defaults: only the given members are loaded.
"""

from __future__ import annotations

import inspect

import marshmallow as ma

from ctms.contacts import fields
from ctms.contacts.fields import Fields, Schema
from ctms.contacts.parts import Part
from ctms.contacts.registry import EMAIL, IDENTITIES, PARTS, EmailSchema

DELETE = "DELETE"
UNSUBSCRIBE = "UNSUBSCRIBE"


class EmailPutSchema(EmailSchema):
    """Address and personal data of the contact, with the id in the path."""

    email_id = fields.UUID(version=4, required=True)
    primary_email = fields.Address(required=True, allow_legacy=True)


class EmailPatchSchema(EmailSchema):
    """Changes to the address and personal data of the contact."""

    primary_email = fields.Address(allow_legacy=True)


class VpnWaitlistSchema(Schema):
    """Legacy representation of the waitlist `vpn`."""

    geo = fields.String(allow_none=True)
    platform = fields.String(allow_none=True)


class RelayWaitlistSchema(Schema):
    """Legacy representation of the waitlists `relay…`."""

    geo = fields.String(allow_none=True)


def _build_request_field(part: Part, email: type[Schema]) -> fields.Field:
    if part.many:
        return fields.Subscriptions(part.schema, load_default=list, allow_none=True)
    if part.required:
        return fields.SubDocument(email, required=True)
    return fields.SubDocument(part.schema, load_default=None)


def _build_patch_field(part: Part) -> fields.Field:
    if part.many:
        but_name = [name for name in part.schema().fields if name != "name"]
        return fields.Subscriptions(part.schema(partial=but_name), actions=(UNSUBSCRIBE,))
    if part.required:
        return fields.SubDocument(EmailPatchSchema(partial=True))
    return fields.SubDocument(part.schema(partial=True), actions=(DELETE,))


def _build_response_field(part: Part) -> fields.Field:
    return fields.Subscriptions(part.schema) if part.many else fields.SubDocument(part.schema)


class ContactSchema(Schema):
    """Contact to be created."""

    class Meta(Schema.Meta):
        include: Fields = {name: _build_request_field(part, EmailSchema) for name, part in PARTS.items()}  # noqa: RUF012


class ContactPutSchema(Schema):
    """Contact that replaces the previous one."""

    class Meta(Schema.Meta):
        include: Fields = {name: _build_request_field(part, EmailPutSchema) for name, part in PARTS.items()}  # noqa: RUF012


class ContactPatchSchema(Schema):
    """Changes to a contact."""

    class Meta(Schema.Meta):
        include: Fields = {name: _build_patch_field(part) for name, part in PARTS.items()}  # noqa: RUF012


class ListedContactSchema(Schema):
    """Contact in a list."""

    class Meta(Schema.Meta):
        include: Fields = {  # noqa: RUF012
            **{name: _build_response_field(part) for name, part in sorted(PARTS.items())},
            "vpn_waitlist": fields.SubDocument(VpnWaitlistSchema),
            "relay_waitlist": fields.SubDocument(RelayWaitlistSchema),
        }


def _build_sparse_field(part: Part) -> fields.Field:
    """Return the field of a part whose members may be missing."""
    described = {"__doc__": f"{inspect.getdoc(part.schema)} Some members may be missing.", "sparse_of": part.schema}
    sparse = type(f"Sparse{part.schema.__name__}", (part.schema,), described)
    return fields.Subscriptions(sparse) if part.many else fields.SubDocument(sparse)


class SparseContactSchema(Schema):
    """Contact with the requested parts, and members of parts."""

    class Meta(Schema.Meta):
        include: Fields = {  # noqa: RUF012
            **ListedContactSchema.Meta.include,
            **{name: _build_sparse_field(part) for name, part in sorted(PARTS.items())},
        }
        optional = tuple(name for name in include if name != EMAIL.name)


class ContactDocumentSchema(Schema):
    """Contact with its legacy waitlists."""

    class Meta(Schema.Meta):
        include: Fields = {**ListedContactSchema.Meta.include, "status": fields.String(choices=("ok",))}  # noqa: RUF012


class IdentitySchema(Schema):
    """Identities of a contact."""

    class Meta(Schema.Meta):
        include: Fields = {name: identity.build_response_field() for name, identity in IDENTITIES.items()}  # noqa: RUF012


class DeletionSchema(Schema):
    """Deleted contact."""

    email_id = fields.UUID()
    deleted_at = fields.Timestamp()
    merged_into = fields.UUID(
        allow_none=True, metadata={"description": "The contact that replaces it, if it was a duplicate."}
    )


class DepartureSchema(Schema):
    """Contact that no longer has the requested value of `mofo_relevant`."""

    email_id = fields.UUID()
    left_at = fields.Timestamp()


class UpdatesSchema(Schema):
    """Page of changed contacts, oldest first."""

    class Meta(Schema.Meta):
        optional = ("deleted", "left")

    start = ma.fields.DateTime()
    end = ma.fields.DateTime()
    limit = ma.fields.Integer()
    after = fields.String(allow_none=True)
    next = fields.String(allow_none=True)
    items = ma.fields.List(ma.fields.Nested(ListedContactSchema))
    deleted = ma.fields.List(ma.fields.Nested(DeletionSchema), metadata={"description": "With `deleted=true`."})
    left = ma.fields.List(
        ma.fields.Nested(DepartureSchema), metadata={"description": "With `deleted=true` and `mofo_relevant`."}
    )
