"""Request bodies of contacts for tests."""

from __future__ import annotations

import uuid
from typing import Any


def address() -> str:
    """Return an address that no contact has."""
    return f"{uuid.uuid4().hex}@example.com"


def minimal(**email: Any) -> dict[str, Any]:
    """Return a contact with an address and further members of `email`."""
    return {"email": {"primary_email": address(), **email}}


def full(**groups: Any) -> dict[str, Any]:
    """Return a contact with values in every member; `groups` replace whole members."""
    unique = uuid.uuid4().hex[:12]
    contact = {
        "email": {
            "email_id": str(uuid.uuid4()),
            "primary_email": f"jane-{unique}@example.com",
            "basket_token": str(uuid.uuid4()),
            "double_opt_in": True,
            "sfdc_id": f"sf-{unique}",
            "first_name": "Jane",
            "last_name": "Doe",
            "mailing_country": "ca",
            "email_format": "T",
            "email_lang": "fr",
            "has_opted_out_of_email": True,
            "unsubscribe_reason": "done",
        },
        "amo": {
            "add_on_ids": "fanfox,foxfan",
            "display_name": "#1 Fan",
            "email_opt_in": True,
            "language": "fr,en",
            "last_login": "2020-01-27",
            "location": "The Inter",
            "profile_url": "firefox/user/14508209",
            "user": True,
            "user_id": f"amo-{unique}",
            "username": "Mozilla1Fan",
        },
        "fxa": {
            "fxa_id": f"fxa-{unique}",
            "primary_email": f"fxa-{unique}@example.com",
            "created_date": "2019-05-22T08:29:31.906094+00:00",
            "lang": "fr,fr-CA",
            "first_service": "monitor",
            "account_deleted": True,
        },
        "mofo": {
            "mofo_email_id": f"me-{unique}",
            "mofo_contact_id": f"mc-{unique}",
            "mofo_relevant": True,
        },
        "newsletters": [
            {
                "name": "ambassadors",
                "subscribed": False,
                "format": "T",
                "lang": "fr",
                "source": "https://www.mozilla.org/contribute/",
                "unsub_reason": "Graduated",
            },
            {"name": "hubs"},
        ],
        "waitlists": [
            {"name": "relay", "fields": {"geo": "cn"}},
            {
                "name": "super-product",
                "source": "https://super-product.example.com/",
                "fields": {"geo": "fr", "platform": "win64", "deep": {"a": [1, 2.5, None]}},
                "subscribed": False,
                "unsub_reason": "bye",
            },
            {"name": "vpn", "fields": {"geo": "ca", "platform": "windows,android"}},
        ],
    }
    return {**contact, **groups}
