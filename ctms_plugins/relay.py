"""The rules for the waitlist `relay`: `geo` only."""

from collections.abc import Iterator

import marshmallow as ma

from ctms.plugins import Waitlist, hookimpl


class RelayFields(ma.Schema):
    """An optional `geo`, short text or null."""

    geo = ma.fields.String(validate=ma.validate.Length(max=100), allow_none=True)


@hookimpl
def ctms_waitlists() -> Iterator[Waitlist]:
    """Declare the waitlist."""
    yield Waitlist(name="relay", title="Relay", schema=RelayFields)
