"""Example bodies of requests. A test sends them."""

from __future__ import annotations

from typing import Any

_ID = "93db83d4-4119-4e0c-af87-a713786fa81d"

_FULL: dict[str, Any] = {
    "email": {
        "email_id": _ID,
        "primary_email": "jane@example.com",
        "first_name": "Jane",
        "last_name": "Doe",
        "mailing_country": "ca",
        "email_format": "T",
        "email_lang": "fr",
        "double_opt_in": True,
    },
    "fxa": {"fxa_id": "6eb6ed6ac3b64259968aa490c6c0b9df", "primary_email": "jane@example.com", "lang": "fr,fr-CA"},
    "mofo": {"mofo_email_id": "195207d2-63f2-4c9f-b149-80e9c408477a", "mofo_relevant": True},
    "newsletters": [
        {"name": "mozilla-welcome", "lang": "fr", "source": "https://www.mozilla.org/en-US/newsletter/"},
        {"name": "hubs", "subscribed": False, "unsub_reason": "too many"},
    ],
    "waitlists": [{"name": "vpn", "fields": {"geo": "ca", "platform": "windows,android"}}],
}

CREATE: dict[str, Any] = {
    "address": {"summary": "An address", "value": {"email": {"primary_email": "jane@example.com"}}},
    "more": {"summary": "A contact with all groups", "value": _FULL},
}
PUT: dict[str, Any] = {"contact": {"summary": "A complete contact", "value": _FULL}}
ERASE: dict[str, Any] = {
    "addresses": {"summary": "Two addresses", "value": {"emails": ["jane@example.com", "joe@example.com"]}},
    "identities": {
        "summary": "An account holder, to be forgotten",
        "value": {"identities": [{"fxa_id": "6eb6ed6ac3b64259968aa490c6c0b9df"}], "forget": True},
    },
}
ACCESS: dict[str, Any] = {"address": {"summary": "An address", "value": {"address": "jane@example.com"}}}
EXPORT: dict[str, Any] = {
    "all": {"summary": "All contacts", "value": {"format": "ndjson"}},
    "some": {
        "summary": "Addresses of subscribers in Canada",
        "value": {
            "format": "csv",
            "filter": {"mailing_country": "ca", "newsletters": "common-voice"},
            "fields": ["email.email_id", "email.primary_email"],
        },
    },
}
MERGE: dict[str, Any] = {
    "preview": {"summary": "Preview a merge", "value": {"from": _ID, "dry_run": True}},
    "merge": {"summary": "Merge a duplicate", "value": {"from": _ID}},
}
SEARCH: dict[str, Any] = {
    "waitlist": {
        "summary": "Who is on a waitlist, from Canada",
        "value": {"filter": {"waitlists": {"name": "vpn", "fields": {"geo": "ca"}}}, "fields": ["email.primary_email"]},
    },
    "either": {
        "summary": "Subscribers of a newsletter in two countries, without an account, and their number",
        "value": {
            "filter": {"newsletters": "hubs", "mailing_country": ["ca", "us"], "not": {"has_fxa": True}},
            "count": True,
        },
    },
}
PATCH: dict[str, Any] = {
    "name": {"summary": "Correct a name", "value": {"email": {"last_name": "Roe"}}},
    "subscribe": {
        "summary": "Subscribe to one newsletter, unsubscribe from another",
        "value": {"newsletters": [{"name": "mozilla-welcome"}, {"name": "hubs", "subscribed": False}]},
    },
    "unsubscribe": {"summary": "Unsubscribe from all newsletters", "value": {"newsletters": "UNSUBSCRIBE"}},
    "account deleted": {"summary": "Delete the account's data", "value": {"fxa": "DELETE"}},
}
BATCH: dict[str, Any] = {
    "upsert": {
        "summary": "Create or update two contacts",
        "value": {
            "items": [
                {
                    "match": {"primary_email": "jane@example.com"},
                    "contact": {"newsletters": [{"name": "mozilla-welcome"}]},
                },
                {
                    "match": {"fxa_id": "6eb6ed6ac3b64259968aa490c6c0b9df"},
                    "mode": "update",
                    "contact": {"email": {"email_lang": "de"}},
                },
            ]
        },
    },
}
