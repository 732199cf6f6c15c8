"""The registry of a contact's parts and identities.

Schemas, SQL, parameters, the OpenAPI document, and erasures derive from it. Validation follows the schemas here; the
tables of the parts are in `models`. Every column is classified here, which the report of an access request shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import marshmallow as ma

from ctms import addresses
from ctms.contacts import fields, models
from ctms.contacts.classification import (
    ACCOUNT,
    ADD_ONS,
    CONSENT,
    CONTACT_DETAILS,
    FOUNDATION,
    IDENTIFIER,
    INTEREST,
    PREFERENCE,
    ROW_NUMBER,
    TIMES,
)
from ctms.contacts.evidence import EvidenceSchema
from ctms.contacts.parts import Identity, Part
from ctms.contacts.waitlist_rules import waitlist_registry


class EmailSchema(fields.Schema):
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


class AmoSchema(fields.Schema):
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


class FxaSchema(fields.Schema):
    """Account of the person."""

    fxa_id = fields.String(50, load_default=None)
    # Any text, as the service spells it, but without what would keep a search by the address from finding it.
    primary_email = fields.String(255, load_default=None, post_load=addresses.strip_display_name)
    created_date = fields.String(50, load_default=None)
    lang = fields.String(255, load_default=None)
    first_service = fields.String(50, load_default=None)
    account_deleted = fields.Boolean(load_default=False)


class MofoSchema(fields.Schema):
    """Data of the foundation about the person."""

    mofo_email_id = fields.String(255, load_default=None)
    mofo_contact_id = fields.String(255, load_default=None)
    mofo_relevant = fields.Boolean(load_default=False)


class NewsletterSchema(fields.Schema):
    """Newsletter of the contact."""

    name = fields.String(255, required=True)
    subscribed = fields.Boolean(load_default=True)
    format = fields.String(choices=("H", "T"), load_default="H")
    lang = fields.String(5, min_length=2, load_default="en", allow_none=True)
    source = fields.AbsoluteUrl(load_default=None)
    unsub_reason = fields.String(load_default=None)
    evidence = fields.SubDocument(EvidenceSchema, load_default=None, load_only=True)
    create_timestamp = fields.Timestamp()
    update_timestamp = fields.Timestamp()


class WaitlistSchema(fields.Schema):
    """Waitlist of the contact. The rules for `fields` depend on its name."""

    name = fields.String(255, min_length=1, required=True)
    source = fields.AbsoluteUrl(load_default=None)
    fields_ = fields.Object(load_default=dict, data_key="fields", attribute="fields")
    subscribed = fields.Boolean(load_default=True)
    unsub_reason = fields.String(load_default=None)
    evidence = fields.SubDocument(EvidenceSchema, load_default=None, load_only=True)
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


_CHANGES = ("create_timestamp", "update_timestamp")
_ROW = {ROW_NUMBER: ("id",), TIMES: _CHANGES}

EMAIL = Part(
    "email",
    "e",
    models.Email,
    EmailSchema,
    required=True,
    classified={
        CONTACT_DETAILS: ("primary_email", "first_name", "last_name", "mailing_country"),
        IDENTIFIER: ("email_id", "basket_token", "sfdc_id"),
        PREFERENCE: ("email_format", "email_lang"),
        CONSENT: ("double_opt_in", "has_opted_out_of_email", "unsubscribe_reason"),
        TIMES: _CHANGES,
    },
)
AMO = Part(
    "amo",
    "a",
    models.Amo,
    AmoSchema,
    classified={
        **_ROW,
        IDENTIFIER: ("email_id", "user_id"),
        CONSENT: ("email_opt_in",),
        ADD_ONS: (
            "add_on_ids",
            "display_name",
            "language",
            "last_login",
            "location",
            "profile_url",
            "user",
            "username",
        ),
    },
)
FXA = Part(
    "fxa",
    "f",
    models.Fxa,
    FxaSchema,
    classified={
        **_ROW,
        IDENTIFIER: ("email_id", "fxa_id"),
        CONTACT_DETAILS: ("primary_email",),
        ACCOUNT: ("created_date", "lang", "first_service", "account_deleted"),
    },
)
MOFO = Part(
    "mofo",
    "m",
    models.Mofo,
    MofoSchema,
    classified={
        **_ROW,
        IDENTIFIER: ("email_id", "mofo_email_id", "mofo_contact_id"),
        FOUNDATION: ("mofo_relevant",),
    },
)
NEWSLETTERS = Part(
    "newsletters",
    "s",
    models.NewsletterEntry,
    NewsletterSchema,
    many=True,
    classified={
        ROW_NUMBER: ("id",),
        IDENTIFIER: ("email_id",),
        CONSENT: ("name", "subscribed", "source", "unsub_reason", *_CHANGES),
        PREFERENCE: ("format", "lang"),
    },
)
WAITLISTS = Part(
    "waitlists",
    "s",
    models.WaitlistEntry,
    WaitlistSchema,
    many=True,
    classified={
        ROW_NUMBER: ("id",),
        IDENTIFIER: ("email_id",),
        CONSENT: ("name", "subscribed", "source", "unsub_reason", *_CHANGES),
        INTEREST: ("fields",),
    },
)

PARTS: Mapping[str, Part] = {part.name: part for part in (EMAIL, AMO, FXA, MOFO, NEWSLETTERS, WAITLISTS)}
"""All parts, by name, in the order of requests; the documents of contacts list them by name."""
SUB_DOCUMENTS = {name: part for name, part in PARTS.items() if not part.many and not part.required}
"""The sub-documents besides `email`; a contact may be without them."""
LISTS = {name: part for name, part in PARTS.items() if part.many}
"""The lists."""

IDENTITIES: Mapping[str, Identity] = {
    identity.name: identity
    for identity in (
        Identity("email_id", EMAIL, "email_id"),
        Identity("primary_email", EMAIL, "primary_email", is_address=True),
        Identity("basket_token", EMAIL, "basket_token"),
        Identity("sfdc_id", EMAIL, "sfdc_id"),
        Identity("mofo_contact_id", MOFO, "mofo_contact_id"),
        Identity("mofo_email_id", MOFO, "mofo_email_id"),
        Identity("amo_user_id", AMO, "user_id"),
        Identity("fxa_id", FXA, "fxa_id"),
        Identity("fxa_primary_email", FXA, "primary_email", is_address=True),
    )
}
"""All identities, by name."""
ADDRESSES = {name: identity for name, identity in IDENTITIES.items() if identity.is_address}
"""The identities that are addresses; the first is the contact's own."""
