"""What clients may write into paths and queries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import marshmallow as ma

from ctms import addresses
from ctms.api.parsing import problems
from ctms.contacts.fields import Field, Flag, PlainText, Uuid, invalid
from ctms.contacts.queries import IDENTITIES, Position
from ctms.contacts.schemas import Schema
from ctms.errors import BadRequest, Invalid

_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:?\d\d$)")
_UUID = Uuid()


def contact_id(email_id: str) -> UUID:
    """Read the id of a contact in a path. Raises `Invalid`."""
    return path_id("email_id", email_id)


def path_id(name: str, value: str) -> UUID:
    """Read the id in a path that is called `name` there. Raises `Invalid`."""
    try:
        found: UUID = _UUID.deserialize(value)
    except ma.ValidationError as error:
        raise Invalid(problems({"path": {name: error.messages}})) from None
    return found


class AddressText(PlainText):
    """An address to look for, in any spelling; one with a `+` that was not escaped arrives with a space."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return addresses.plus_for_space(super()._deserialize(value, attr, data, **kwargs))


class IdentitiesQuery(Schema):
    """By which identities to look for contacts: all that are given must match."""

    email_id = Uuid()
    primary_email = AddressText()
    basket_token = Uuid()
    sfdc_id = PlainText()
    mofo_contact_id = PlainText()
    mofo_email_id = PlainText()
    amo_user_id = PlainText()
    fxa_id = PlainText()
    fxa_primary_email = AddressText()


def some_identity(identities: Mapping[str, Any]) -> None:
    """Raise `BadRequest` unless at least one identity is given."""
    if not identities:
        raise BadRequest(f"No identifiers provided, at least one is needed: {', '.join(IDENTITIES)}")


class Instant(Field):
    """A date and time, ISO 8601; without an offset it is UTC."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        try:
            # A `+` that was not escaped arrives as a space: what was meant is plain.
            moment = datetime.fromisoformat(_SPACE_FOR_PLUS.sub("+", value))
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise invalid("Input should be a valid datetime", "datetime_parsing") from error


class Limit(Field):
    """How many items a page has at the most."""

    lowest, highest = 1, 1000

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not re.fullmatch(r"[+-]?\d{1,9}", value, re.ASCII):
            raise invalid("Input should be a valid integer", "int_parsing")
        number = int(value)
        if number < self.lowest:
            raise invalid(f"Input should be at least {self.lowest}", "greater_than_equal")
        if number > self.highest:
            raise invalid(f"Input should be at most {self.highest}", "less_than_equal")
        return number


class Cursor(Field):
    """Where the page before ended, as its `after` said."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        try:
            return Position.from_cursor(value)
        except ValueError as error:
            raise invalid("Input should be the `after` of a page", "cursor") from error


class UpdatesQuery(Schema):
    """Which changes to list."""

    start = Instant(required=True)
    end = Instant(load_default=None)
    limit = Limit(load_default=100)
    after = Cursor(load_default=None)
    mofo_relevant = Flag(load_default=None)
