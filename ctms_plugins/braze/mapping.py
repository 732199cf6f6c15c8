"""The mapping between contacts and the attributes of profiles, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MAX_TEXT_LENGTH = 255
"""Maximum number of characters of a custom attribute."""

_OWN = (("email", "email", "primary_email"), ("first_name", "email", "first_name"), ("last_name", "email", "last_name"))
_CUSTOM = (
    ("ctms_basket_token", "email", "basket_token"),
    ("ctms_sfdc_id", "email", "sfdc_id"),
    ("ctms_mailing_country", "email", "mailing_country"),
    ("ctms_email_lang", "email", "email_lang"),
    ("ctms_email_format", "email", "email_format"),
    ("ctms_double_opt_in", "email", "double_opt_in"),
    ("ctms_amo_user", "amo", "user"),
    ("ctms_amo_email_opt_in", "amo", "email_opt_in"),
    ("ctms_fxa_id", "fxa", "fxa_id"),
    ("ctms_fxa_lang", "fxa", "lang"),
    ("ctms_fxa_first_service", "fxa", "first_service"),
    ("ctms_fxa_account_deleted", "fxa", "account_deleted"),
    ("ctms_mofo_relevant", "mofo", "mofo_relevant"),
)
_LISTS = {
    "newsletters": ("name", "subscribed", "format", "lang", "source", "unsub_reason"),
    "waitlists": ("name", "subscribed", "source", "unsub_reason"),
}
_NOT_IN_A_KEY = re.compile(r"[.$\s]")

EXPORTED = ["external_id", "email", "first_name", "last_name", "email_subscribe", "custom_attributes"]
"""The fields of a profile that `document_of` reads."""


def attributes_of(email_id: str, document: Mapping[str, Any], *, resubscribe: bool) -> dict[str, Any]:
    """Return all attributes of a contact: null removes one in Braze."""
    email = document["email"]
    country, language = email["mailing_country"] or "", email["email_lang"] or ""
    found = {"external_id": email_id, **{name: document[group][field] for name, group, field in _OWN}}
    found["country"] = country.upper() if len(country) == 2 and country.isalpha() else None
    found["language"] = language[:2].lower() if language[:2].isalpha() and len(language) > 1 else None
    if email["has_opted_out_of_email"]:
        found["email_subscribe"] = "unsubscribed"
    elif resubscribe:
        found["email_subscribe"] = "opted_in" if email["double_opt_in"] else "subscribed"
    found |= {name: _clean(document[group][field]) for name, group, field in _CUSTOM}
    found["ctms_create_timestamp"] = email["create_timestamp"]
    for part, members in _LISTS.items():
        wanted = (*members, "fields")
        found[f"ctms_{part}"] = [
            _clean({member: entry[member] for member in wanted if member in entry}) for entry in document[part]
        ]
    return found


def mirrored_id(profile: Mapping[str, Any]) -> str | None:
    """Return the id of the contact whose attributes the profile has; None if it has none of a contact."""
    external_id, custom = profile.get("external_id"), profile.get("custom_attributes") or {}
    return external_id if isinstance(external_id, str) and "ctms_create_timestamp" in custom else None


def document_of(profile: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the document that a profile has completely. A missing attribute of an export is null."""
    custom = profile.get("custom_attributes") or {}
    found: dict[str, Any] = {
        "email": {"has_opted_out_of_email": profile.get("email_subscribe") == "unsubscribed"},
        **{part: _entries(custom.get(f"ctms_{part}") or (), members) for part, members in _LISTS.items()},
    }
    for source, names in ((profile, _OWN), (custom, _CUSTOM)):
        for name, group, field in names:
            value = source.get(name)
            if _is_whole(value):
                found.setdefault(group, {})[field] = value
    return found


def _entries(entries: Sequence[Mapping[str, Any]], members: Sequence[str]) -> list[dict[str, Any]]:
    return [{one: entry.get(one) for one in members if _is_whole(entry.get(one))} for entry in entries]


def _is_whole(value: Any) -> bool:
    return not isinstance(value, str) or len(value) < MAX_TEXT_LENGTH


def _clean(value: Any) -> Any:
    """Return a value as Braze accepts it: truncated text, and no nulls inside, which make Braze drop the object."""
    if isinstance(value, str):
        return value[:MAX_TEXT_LENGTH]
    if isinstance(value, Mapping):
        return dict(_members(value))
    if isinstance(value, Sequence):
        return [_clean(one) for one in value if one is not None]
    return value


def _members(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in value.items():
        if inner is not None:
            yield _NOT_IN_A_KEY.sub("_", name)[:MAX_TEXT_LENGTH] or "_", _clean(inner)
