"""Schemas of contacts in requests and responses: the source of validation and of the OpenAPI document.

The database renders the documents of responses (`documents`); a test compares real responses with these schemas.
A `Patch` schema is its namesake without required members and defaults: only the given members are loaded.
"""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ctms import addresses
from ctms.contacts import fields
from ctms.contacts.waitlist_rules import waitlist_registry

DELETE = "DELETE"
UNSUBSCRIBE = "UNSUBSCRIBE"


class Schema(ma.Schema):
    """A schema that ignores unknown members when it loads."""

    error_messages = {"type": fields.Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    class Meta:
        unknown = ma.EXCLUDE


class EmailSchema(Schema):
    """Address and personal data of the contact."""

    email_id = fields.UUID(version=4, load_default=None)
    primary_email = fields.Address(required=True)
    basket_token = fields.UUID(load_default=None)
    double_opt_in = fields.Boolean(load_default=False)
    sfdc_id = fields.String(255, load_default=None)
    first_name = fields.String(255, load_default=None)
    last_name = fields.String(255, load_default=None)
    mailing_country = fields.String(255, load_default=None)
    email_format = fields.String(choices=("H", "T", "N", ""), load_default="H")
    email_lang = fields.String(5, load_default="en", allow_none=True)
    has_opted_out_of_email = fields.Boolean(load_default=False)
    unsubscribe_reason = fields.String(load_default=None)
    create_timestamp = fields.Timestamp()
    update_timestamp = fields.Timestamp()


class EmailPutSchema(EmailSchema):
    """Address and personal data of the contact, with the id in the path."""

    email_id = fields.UUID(version=4, required=True)
    primary_email = fields.Address(required=True, allow_legacy=True)


class EmailPatchSchema(EmailSchema):
    """Changes to the address and personal data of the contact."""

    primary_email = fields.Address(allow_legacy=True)


class AmoSchema(Schema):
    """Data of addons.mozilla.org about the person."""

    add_on_ids = fields.String(500, load_default=None)
    display_name = fields.String(255, load_default=None)
    email_opt_in = fields.Boolean(load_default=False)
    language = fields.String(5, load_default=None)
    last_login = fields.Date(load_default=None)
    location = fields.String(255, load_default=None)
    profile_url = fields.String(40, load_default=None)
    user = fields.Boolean(load_default=False)
    user_id = fields.String(40, load_default=None)
    username = fields.String(100, load_default=None)
    create_timestamp = fields.Timestamp()
    update_timestamp = fields.Timestamp()


class FxaSchema(Schema):
    """Account of the person."""

    fxa_id = fields.String(50, load_default=None)
    # Any text, as the service spells it, but without what would keep a search by the address from finding it.
    primary_email = fields.String(255, load_default=None, post_load=addresses.strip_display_name)
    created_date = fields.String(50, load_default=None)
    lang = fields.String(255, load_default=None)
    first_service = fields.String(50, load_default=None)
    account_deleted = fields.Boolean(load_default=False)


class MofoSchema(Schema):
    """Data of the foundation about the person."""

    mofo_email_id = fields.String(255, load_default=None)
    mofo_contact_id = fields.String(255, load_default=None)
    mofo_relevant = fields.Boolean(load_default=False)


class NewsletterSchema(Schema):
    """Newsletter of the contact."""

    name = fields.String(255, required=True)
    subscribed = fields.Boolean(load_default=True)
    format = fields.String(choices=("H", "T"), load_default="H")
    lang = fields.String(5, min_length=2, load_default="en", allow_none=True)
    source = fields.AbsoluteUrl(load_default=None)
    unsub_reason = fields.String(load_default=None)
    create_timestamp = fields.Timestamp()
    update_timestamp = fields.Timestamp()


class WaitlistSchema(Schema):
    """Waitlist of the contact. The rules for `fields` depend on its name."""

    name = fields.String(255, min_length=1, required=True)
    source = fields.AbsoluteUrl(load_default=None)
    fields_ = fields.Object(load_default=dict, data_key="fields", attribute="fields")
    subscribed = fields.Boolean(load_default=True)
    unsub_reason = fields.String(load_default=None)
    create_timestamp = fields.Timestamp()
    update_timestamp = fields.Timestamp()

    @ma.post_load
    def check_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Apply the waitlist's rules to `fields`."""
        if "fields" in data and "name" in data:
            try:
                data["fields"] = waitlist_registry().validate(data["name"], data["fields"])
            except ma.ValidationError as error:
                raise ma.ValidationError({"fields": error.messages}) from error
        return data


class VpnWaitlistSchema(Schema):
    """Legacy representation of the waitlist `vpn`."""

    geo = fields.String(allow_none=True)
    platform = fields.String(allow_none=True)


class RelayWaitlistSchema(Schema):
    """Legacy representation of the waitlists `relay…`."""

    geo = fields.String(allow_none=True)


class ContactSchema(Schema):
    """Contact to be created."""

    email = fields.SubDocument(EmailSchema, required=True)
    amo = fields.SubDocument(AmoSchema, load_default=None)
    fxa = fields.SubDocument(FxaSchema, load_default=None)
    mofo = fields.SubDocument(MofoSchema, load_default=None)
    newsletters = fields.Subscriptions(NewsletterSchema, load_default=list, allow_none=True)
    waitlists = fields.Subscriptions(WaitlistSchema, load_default=list, allow_none=True)


class ContactPutSchema(ContactSchema):
    """Contact that replaces the previous one."""

    email = fields.SubDocument(EmailPutSchema, required=True)


def _but_name(schema: type[Schema]) -> Schema:
    return schema(partial=[name for name in schema().fields if name != "name"])


class ContactPatchSchema(Schema):
    """Changes to a contact."""

    email = fields.SubDocument(EmailPatchSchema(partial=True))
    amo = fields.SubDocument(AmoSchema(partial=True), actions=(DELETE,))
    fxa = fields.SubDocument(FxaSchema(partial=True), actions=(DELETE,))
    mofo = fields.SubDocument(MofoSchema(partial=True), actions=(DELETE,))
    newsletters = fields.Subscriptions(_but_name(NewsletterSchema), actions=(UNSUBSCRIBE,))
    waitlists = fields.Subscriptions(_but_name(WaitlistSchema), actions=(UNSUBSCRIBE,))


class ListedContactSchema(Schema):
    """Contact in a list."""

    amo = fields.SubDocument(AmoSchema)
    email = fields.SubDocument(EmailSchema)
    fxa = fields.SubDocument(FxaSchema)
    mofo = fields.SubDocument(MofoSchema)
    newsletters = fields.Subscriptions(NewsletterSchema)
    waitlists = fields.Subscriptions(WaitlistSchema)
    vpn_waitlist = fields.SubDocument(VpnWaitlistSchema)
    relay_waitlist = fields.SubDocument(RelayWaitlistSchema)


class ContactDocumentSchema(ListedContactSchema):
    """Contact with its legacy waitlists."""

    status = fields.String(choices=("ok",))


class IdentitySchema(Schema):
    """Identities of a contact."""

    email_id = fields.UUID()
    primary_email = fields.String()
    basket_token = fields.String(allow_none=True)
    sfdc_id = fields.String(allow_none=True)
    mofo_contact_id = fields.String(allow_none=True)
    mofo_email_id = fields.String(allow_none=True)
    amo_user_id = fields.String(allow_none=True)
    fxa_id = fields.String(allow_none=True)
    fxa_primary_email = fields.String(allow_none=True)


class UpdatesSchema(Schema):
    """Page of changed contacts, oldest first."""

    start = ma.fields.DateTime()
    end = ma.fields.DateTime()
    limit = ma.fields.Integer()
    after = fields.String(allow_none=True)
    next = fields.String(allow_none=True)
    items = ma.fields.List(ma.fields.Nested(ListedContactSchema))
