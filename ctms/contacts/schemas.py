"""What a contact looks like, on its way in and out: the source of validation and of the OpenAPI document.

On the way out the database renders the document (`documents`); a test holds real answers against these schemas.
A `Patch` schema is its namesake with nothing required and no defaults: only the members given are loaded.
"""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ctms.contacts.fields import (
    AbsoluteUrl,
    AccountAddress,
    Address,
    Day,
    Flag,
    Group,
    Message,
    Object,
    PlainText,
    Subscriptions,
    Timestamp,
    Uuid,
)
from ctms.contacts.waitlists import waitlists

DELETE = "DELETE"
UNSUBSCRIBE = "UNSUBSCRIBE"


class Schema(ma.Schema):
    """Unknown members are ignored on the way in."""

    error_messages = {"type": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    class Meta:
        unknown = ma.EXCLUDE


def text(longest: int | None = None, default: str | None = None, **kwargs: Any) -> PlainText:
    """Optional text: null unless given."""
    return PlainText(longest, load_default=default, allow_none=True, **kwargs)


def flag(*, default: bool = False) -> Flag:
    """An optional boolean, never null."""
    return Flag(load_default=default)


class EmailSchema(Schema):
    """The contact's address and what is said of the person."""

    email_id = Uuid(version=4, load_default=None, allow_none=True)
    primary_email = Address(required=True)
    basket_token = Uuid(load_default=None, allow_none=True)
    double_opt_in = flag()
    sfdc_id = text(255)
    first_name = text(255)
    last_name = text(255)
    mailing_country = text(255)
    email_format = PlainText(choices=("H", "T", "N", ""), load_default="H")
    email_lang = text(5, "en")
    has_opted_out_of_email = flag()
    unsubscribe_reason = text()
    create_timestamp = Timestamp()
    update_timestamp = Timestamp()


class EmailPutSchema(EmailSchema):
    """The contact's address and what is said of the person; the id must be there, and be that of the path."""

    email_id = Uuid(version=4, required=True)
    primary_email = Address(required=True, keep_odd=True)


class EmailPatchSchema(EmailSchema):
    """What to change of the contact's address and of what is said of the person."""

    primary_email = Address(keep_odd=True)


class AmoSchema(Schema):
    """What addons.mozilla.org knows about the person."""

    add_on_ids = text(500)
    display_name = text(255)
    email_opt_in = flag()
    language = text(5)
    last_login = Day(load_default=None, allow_none=True)
    location = text(255)
    profile_url = text(40)
    user = flag()
    user_id = text(40)
    username = text(100)
    create_timestamp = Timestamp()
    update_timestamp = Timestamp()


class FxaSchema(Schema):
    """The person's account."""

    fxa_id = text(50)
    primary_email = AccountAddress()
    created_date = text(50)
    lang = text(255)
    first_service = text(50)
    account_deleted = flag()


class MofoSchema(Schema):
    """What the foundation knows about the person."""

    mofo_email_id = text(255)
    mofo_contact_id = text(255)
    mofo_relevant = flag()


class NewsletterSchema(Schema):
    """One newsletter."""

    name = PlainText(255, required=True)
    subscribed = flag(default=True)
    format = PlainText(choices=("H", "T"), load_default="H")
    lang = text(5, "en", shortest=2)
    source = AbsoluteUrl(load_default=None, allow_none=True)
    unsub_reason = text()
    create_timestamp = Timestamp()
    update_timestamp = Timestamp()


class WaitlistSchema(Schema):
    """One waitlist; what `fields` may hold depends on its name."""

    name = PlainText(255, shortest=1, required=True)
    source = AbsoluteUrl(load_default=None, allow_none=True)
    fields_ = Object(load_default=dict, data_key="fields", attribute="fields")
    subscribed = flag(default=True)
    unsub_reason = text()
    create_timestamp = Timestamp()
    update_timestamp = Timestamp()

    @ma.post_load
    def check_fields(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Let the waitlist's own rules decide about `fields`."""
        if "fields" in data and "name" in data:
            try:
                data["fields"] = waitlists().validate(data["name"], data["fields"])
            except ma.ValidationError as error:
                raise ma.ValidationError({"fields": error.messages}) from error
        return data


class VpnWaitlistSchema(Schema):
    """What old clients knew of the waitlist `vpn`."""

    geo = PlainText(allow_none=True)
    platform = PlainText(allow_none=True)


class RelayWaitlistSchema(Schema):
    """What old clients knew of the waitlists `relay…`."""

    geo = PlainText(allow_none=True)


class ContactSchema(Schema):
    """A contact to be created."""

    email = Group(EmailSchema, required=True)
    amo = Group(AmoSchema, load_default=None, allow_none=True)
    fxa = Group(FxaSchema, load_default=None, allow_none=True)
    mofo = Group(MofoSchema, load_default=None, allow_none=True)
    newsletters = Subscriptions(NewsletterSchema, load_default=list, allow_none=True)
    waitlists = Subscriptions(WaitlistSchema, load_default=list, allow_none=True)


class ContactPutSchema(ContactSchema):
    """A contact that takes the place of the one before."""

    email = Group(EmailPutSchema, required=True)


def _but_name(schema: type[Schema]) -> Schema:
    return schema(partial=[name for name in schema().fields if name != "name"])


class ContactPatchSchema(Schema):
    """What to change of a contact."""

    email = Group(EmailPatchSchema(partial=True))
    amo = Group(AmoSchema(partial=True), actions=(DELETE,))
    fxa = Group(FxaSchema(partial=True), actions=(DELETE,))
    mofo = Group(MofoSchema(partial=True), actions=(DELETE,))
    newsletters = Subscriptions(_but_name(NewsletterSchema), actions=(UNSUBSCRIBE,))
    waitlists = Subscriptions(_but_name(WaitlistSchema), actions=(UNSUBSCRIBE,))


class ListedContactSchema(Schema):
    """A contact as it is found in a list."""

    amo = Group(AmoSchema)
    email = Group(EmailSchema)
    fxa = Group(FxaSchema)
    mofo = Group(MofoSchema)
    newsletters = Subscriptions(NewsletterSchema)
    waitlists = Subscriptions(WaitlistSchema)
    vpn_waitlist = Group(VpnWaitlistSchema)
    relay_waitlist = Group(RelayWaitlistSchema)


class ContactDocumentSchema(ListedContactSchema):
    """A contact, asked for by its id."""

    status = PlainText(choices=("ok",))


class IdentitySchema(Schema):
    """The ids by which a contact is known."""

    email_id = Uuid()
    primary_email = PlainText()
    basket_token = PlainText(allow_none=True)
    sfdc_id = PlainText(allow_none=True)
    mofo_contact_id = PlainText(allow_none=True)
    mofo_email_id = PlainText(allow_none=True)
    amo_user_id = PlainText(allow_none=True)
    fxa_id = PlainText(allow_none=True)
    fxa_primary_email = PlainText(allow_none=True)


class UpdatesSchema(Schema):
    """A page of contacts that changed, oldest first."""

    start = ma.fields.DateTime()
    end = ma.fields.DateTime()
    limit = ma.fields.Integer()
    after = PlainText(allow_none=True)
    next = PlainText(allow_none=True)
    items = ma.fields.List(ma.fields.Nested(ListedContactSchema))
