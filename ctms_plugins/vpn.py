"""The rules for the waitlist `vpn`: `geo` and `platform` only."""

from collections.abc import Iterator

import marshmallow as ma

from ctms.plugins import Waitlist, hookimpl


class VpnFields(ma.Schema):
    """Optional `geo` and `platform`, short text or null."""

    geo = ma.fields.String(validate=ma.validate.Length(max=100), allow_none=True)
    platform = ma.fields.String(validate=ma.validate.Length(max=100), allow_none=True)


@hookimpl
def ctms_waitlists() -> Iterator[Waitlist]:
    """Declare the waitlist."""
    yield Waitlist(name="vpn", title="VPN", schema=VpnFields)
