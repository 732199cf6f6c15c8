"""Parameters in paths and queries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import marshmallow as ma

from ctms import addresses
from ctms.api.parsing import problems
from ctms.contacts import fields
from ctms.contacts.fields import Fields, Message, Schema, invalid
from ctms.contacts.registry import IDENTITIES
from ctms.errors import BadRequest, Invalid
from ctms.history.feeds import Position

_INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:?\d\d$)")
_UUID = fields.UUID()


def contact_id(email_id: str) -> UUID:
    """Parse the id of a contact in a path. Raises `Invalid`."""
    return path_id("email_id", email_id)


def path_id(name: str, value: str) -> UUID:
    """Parse the id in the path parameter `name`. Raises `Invalid`."""
    try:
        found: UUID = _UUID.deserialize(value)
    except ma.ValidationError as error:
        raise Invalid(problems({"path": {name: error.messages}})) from None
    return found


class IdentitiesQuery(Schema):
    """Identities that contacts must match, all of those given."""

    class Meta(Schema.Meta):
        include: Fields = {  # noqa: RUF012
            # A `+` that was not escaped in an address arrives as a space.
            name: one.build_request_field(**({"post_load": addresses.restore_plus_signs} if one.is_address else {}))
            for name, one in IDENTITIES.items()
        }


class AddressQuery(Schema):
    """Address of the contact to write."""

    primary_email = fields.String(
        required=True,
        post_load=addresses.restore_plus_signs,
        metadata={"description": "The address of the contact, in any spelling; the body has it, too."},
    )


def some_identity(identities: Mapping[str, Any]) -> None:
    """Raise `BadRequest` unless at least one identity is given."""
    if not identities:
        raise BadRequest(f"No identifiers provided, at least one is needed: {', '.join(IDENTITIES)}")


MAX_LIMIT = 1000
"""Maximum number of items on a page."""


class Instant(fields.Field, ma.fields.DateTime):
    """A date and time in ISO 8601; UTC, unless it has an offset."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"description": "UTC, unless it has an offset."}, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> datetime:
        try:
            # A `+` that was not escaped arrives as a space; the meaning is unambiguous.
            moment = datetime.fromisoformat(_SPACE_FOR_PLUS.sub("+", value))
            return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
        except (ValueError, OverflowError) as error:
            raise invalid("Input should be a valid datetime", "datetime_parsing") from error


class Limit(fields.Field, ma.fields.Integer):
    """The maximum number of items on a page."""

    default_error_messages = {"invalid": Message("Input should be a valid integer", "int_parsing")}  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        validators = [
            ma.validate.Range(min=1, error=Message("Input should be at least {min}", "greater_than_equal")),
            ma.validate.Range(max=MAX_LIMIT, error=Message("Input should be at most {max}", "less_than_equal")),
        ]
        super().__init__(validate=validators, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> int:
        # A number in a body, text in a query; `int` would also read True and "1_0".
        if isinstance(value, bool) or not _INTEGER.fullmatch(str(value)):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Cursor(fields.Field, ma.fields.String):
    """The end of the previous page of a feed with ids of the type `kind`, as given by its `after`."""

    def __init__(self, kind: type[UUID] | type[int], **kwargs: Any) -> None:
        super().__init__(metadata={"description": "`after` of the previous page."}, **kwargs)
        self._kind = kind

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        try:
            return Position.from_cursor(value, self._kind)
        except ValueError as error:
            raise invalid("Input should be the `after` of a page", "cursor") from error


class UpdatesQuery(Schema):
    """Parameters of a list of changes."""

    start = Instant(required=True)
    end = Instant(load_default=None)
    limit = Limit(load_default=100)
    after = Cursor(UUID, load_default=None)
    mofo_relevant = fields.Boolean(load_default=None)
    deleted = fields.Boolean(
        load_default=False,
        metadata={"description": "Whether to list deleted contacts, and those that left `mofo_relevant`."},
    )
    stale_ok = fields.Boolean(
        load_default=False,
        metadata={"description": "Whether a replica of the database may be read, which may have to catch up first."},
    )
