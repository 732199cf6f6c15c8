"""The evidence of a consent, which clients may send with a newsletter or waitlist; the history keeps it."""

from __future__ import annotations

import ipaddress
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import marshmallow as ma

from ctms.contacts import fields
from ctms.contacts.fields import check_storable, invalid

MAX_BYTES = 2048
"""Maximum size of an evidence as JSON, in bytes of UTF-8."""


class EvidenceSchema(fields.Schema):
    """Evidence of a consent or of its withdrawal, at most 2 KB of JSON. It may have other members, too.

    It is stored in the history of the contact, and appears in no document of a contact.
    """

    class Meta(fields.Schema.Meta):
        unknown = ma.INCLUDE

    form = fields.String(255, allow_none=True, metadata={"description": "Form that the person used."})
    form_version = fields.String(255, allow_none=True, metadata={"description": "Version of the form."})
    ip = fields.String(45, allow_none=True, metadata={"description": "IP address of the person, version 4 or 6."})
    confirmed_at = fields.String(
        allow_none=True, metadata={"format": "date-time", "description": "Time of the confirmation, with an offset."}
    )

    @ma.pre_load
    def check_size(self, data: Any, **_: Any) -> Any:
        """Check what is stored as it is given, other members included."""
        if isinstance(data, dict):
            check_storable(data)
            if len(json.dumps(_without_exponents(data), ensure_ascii=False).encode()) > MAX_BYTES:
                raise invalid(f"Evidence should have at most {MAX_BYTES} bytes of JSON", "too_long")
        return data

    @ma.validates("ip")
    def check_ip(self, value: str | None, **_: Any) -> None:
        """Check that the value is an IP address."""
        try:
            ipaddress.ip_address(value or "::")
        except ValueError as error:
            raise invalid("Input should be an IP address", "ip_any_address", "ip") from error

    @ma.validates("confirmed_at")
    def check_confirmed_at(self, value: str | None, **_: Any) -> None:
        """Check that the value is an instant."""
        if value is None:
            return
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise invalid("Input should be a date and time with an offset", "datetime_parsing", "confirmed_at")


def _without_exponents(value: Any) -> Any:
    """Return the value with each number as long as PostgreSQL renders it: `1e308` has 309 digits there."""
    if isinstance(value, dict):
        return {name: _without_exponents(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_exponents(item) for item in value]
    if isinstance(value, float) and "e" in repr(value):
        return f"{Decimal(repr(value)):f}"
    return value
