"""The rules for every waitlist without its own rules."""

from collections.abc import Iterator

import marshmallow as ma

from ctms.plugins import Waitlist, hookimpl


class DefaultFields(ma.Schema):
    """Optional `geo` and `platform`, short text or null."""

    geo = ma.fields.String(validate=ma.validate.Length(max=100), allow_none=True)
    platform = ma.fields.String(validate=ma.validate.Length(max=100), allow_none=True)


@hookimpl
def ctms_waitlists() -> Iterator[Waitlist]:
    """Declare the rules for any waitlist."""
    yield Waitlist(name="*", title="Any other waitlist", schema=DefaultFields, unknown="accept")
