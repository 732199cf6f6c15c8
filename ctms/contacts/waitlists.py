"""Which rules the `fields` of a waitlist obey: the waitlist's own, or those of any waitlist."""

from __future__ import annotations

from typing import Any

import marshmallow as ma

from ctms.contacts.fields import PlainText


class AnyFields(ma.Schema):
    """Any fields; `geo` and `platform`, where given, are short text or null."""

    geo = PlainText(100, allow_none=True)
    platform = PlainText(100, allow_none=True)

    class Meta:
        unknown = ma.INCLUDE


class RelayFields(ma.Schema):
    """`geo` only."""

    geo = PlainText(100, allow_none=True)


class VpnFields(ma.Schema):
    """`geo` and `platform` only."""

    geo = PlainText(100, allow_none=True)
    platform = PlainText(100, allow_none=True)


_ANY = AnyFields()
_OWN: dict[str, ma.Schema] = {"relay": RelayFields(), "vpn": VpnFields()}


def validate(name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the `fields` of the waitlist `name`; raises `marshmallow.ValidationError`, by field."""
    schema = _OWN.get(name, _ANY)
    try:
        loaded: dict[str, Any] = schema.load(fields)
    except ma.ValidationError as error:
        raise ma.ValidationError({"fields": error.messages}) from error
    return loaded
