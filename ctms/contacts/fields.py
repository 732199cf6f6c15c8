"""The kinds of value that a contact is made of.

Every message carries the `type` that clients switch on, and none repeats the submitted value, which is a
person's. Text that PostgreSQL cannot store (U+0000, lone surrogates) is refused here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import date
from math import isfinite
from typing import Any

import ada_url
import marshmallow as ma

from ctms import addresses

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"(?:urn:uuid:)?\{?[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\}?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0"})

MAX_ENTRIES = 1000
"""How many newsletters or waitlists one request may hold."""
MAX_DEPTH = 50
"""How deeply the fields of a waitlist may nest."""


class Message(str):
    """What is wrong, for people, with the `type` for programs."""

    __slots__ = ("type",)
    type: str

    def __new__(cls, text: str, type: str = "value_error") -> Message:  # noqa: A002
        message = super().__new__(cls, text)
        message.type = type
        return message


def invalid(text: str, type: str, field: str = "_schema") -> ma.ValidationError:  # noqa: A002
    """Make the exception that marshmallow collects."""
    return ma.ValidationError([Message(text, type)], field_name=field)


REQUIRED: dict[str, Any] = {
    "required": Message("Field required", "missing"),
    "null": Message("Must not be null", "null"),
}


class Field(ma.fields.Field[Any]):
    """A field with our words for what is missing or null."""

    default_error_messages = REQUIRED


class PlainText(Field):
    """Unicode text of `shortest` to `longest` characters; with `choices`, one of these."""

    def __init__(
        self,
        longest: int | None = None,
        *,
        shortest: int = 0,
        choices: tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.longest = longest
        self.shortest = shortest
        self.choices = choices

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise invalid("Input should be a valid string", "string_type")
        if self.longest is not None and len(value) > self.longest:
            raise invalid(f"String should have at most {self.longest} characters", "string_too_long")
        if len(value) < self.shortest:
            raise invalid(f"String should have at least {self.shortest} characters", "string_too_short")
        if _NOT_STORABLE.search(value):
            raise invalid("String should not hold U+0000 or half a surrogate pair", "string_unicode")
        if self.choices is not None and value not in self.choices:
            raise invalid(f"Input should be one of {', '.join(map(repr, self.choices))}", "literal_error")
        return value


class Flag(Field):
    """A boolean, in one of the many ways to say it."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, bool):
            return value
        if isinstance(value, int | float) and value in (0, 1):
            return bool(value)
        if isinstance(value, str):
            word = value.lower()
            if word in _TRUE:
                return True
            if word in _FALSE:
                return False
        raise invalid("Input should be a valid boolean", "bool_parsing")


class Uuid(Field):
    """A UUID, of one `version` if given."""

    def __init__(self, *, version: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.version = version

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, str):
            raise invalid("Input should be a valid UUID", "uuid_type")
        if not _UUID.fullmatch(value):  # `uuid.UUID` would also read " 0x_…"
            raise invalid("Input should be a valid UUID", "uuid_parsing")
        parsed = uuid.UUID(value.lower())
        if self.version is not None and parsed.version != self.version:
            raise invalid(f"UUID version {self.version} expected", "uuid_version")
        return parsed


class Day(Field):
    """A date, `YYYY-MM-DD` (RFC 3339, full-date)."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                return date.fromisoformat(value)
            except ValueError:
                pass
        raise invalid("Input should be a valid date, as in 2020-01-27", "date_parsing")


class AbsoluteUrl(PlainText):
    """An absolute URL, stored in the normal form of the WHATWG URL standard (`http://Example.com` → `http://example.com/`)."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return ada_url.URL(text).href
        except ValueError as error:
            raise invalid("Input should be an absolute URL, as in https://example.com/", "url_parsing") from error


class Kept(str):
    """Text that is no address. It may stay where it is stored already: `problem` says what is wrong with it."""

    __slots__ = ("problem",)
    problem: dict[str, str]


class Address(PlainText):
    """An e-mail address, loaded in its normal form (`ctms.addresses`).

    With `keep_odd` what is no address is loaded as `Kept`, for the writer to compare with what is stored.
    """

    def __init__(self, *, keep_odd: bool = False, **kwargs: Any) -> None:
        super().__init__(255, **kwargs)
        self.keep_odd = keep_odd

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            return addresses.normalize(text)
        except addresses.InvalidAddressError as error:
            if not self.keep_odd:
                raise invalid(str(error), "email_parsing") from error
            kept = Kept(text)
            kept.problem = {"msg": str(error), "type": "email_parsing"}
            return kept


class AccountAddress(PlainText):
    """The address of an account: any text, as its service spells it.

    Around an address, white space and a display name are dropped: else nobody would find it again by the address.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(255, load_default=None, allow_none=True, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        return addresses.strip_display_name(super()._deserialize(value, attr, data, **kwargs))


class Object(Field):
    """Any JSON object that PostgreSQL can store, nested up to `MAX_DEPTH` levels."""

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise invalid("Input should be a valid object", "dict_type")
        _check_storable(value, MAX_DEPTH)
        return value


def _check_storable(value: Any, levels: int) -> None:
    if isinstance(value, str):
        if _NOT_STORABLE.search(value):
            raise invalid("Text should not hold U+0000 or half a surrogate pair", "string_unicode")
    elif isinstance(value, float):
        if not isfinite(value):
            raise invalid("Number is too large", "finite_number")
    elif isinstance(value, dict | list):
        if levels == 0:
            raise invalid(f"Object should nest at most {MAX_DEPTH} levels", "recursion_depth")
        for item in value if isinstance(value, list) else (*value, *value.values()):
            _check_storable(item, levels - 1)


class Timestamp(Field):
    """An instant that the database sets, ISO 8601 with `+00:00`; never read."""

    def __init__(self) -> None:
        super().__init__(dump_only=True, allow_none=True)


class Group(ma.fields.Nested):
    """An object of a contact. `actions` are words that may stand for it (`"DELETE"`), handed over as they are."""

    default_error_messages = {**REQUIRED, "type": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    def __init__(self, schema: Any, *, actions: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(schema, **kwargs)
        self.actions = actions

    def _deserialize(self, value: Any, attr: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in self.actions:
            return value
        return super()._deserialize(value, attr, data, *args, **kwargs)


class Subscriptions(ma.fields.List[Any]):
    """A list of entries with names, each name once. `actions` as with `Group` (`"UNSUBSCRIBE"`)."""

    default_error_messages = {**REQUIRED, "invalid": Message("Input should be a valid list", "list_type")}  # noqa: RUF012

    def __init__(self, schema: Any, *, actions: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(Group(schema), **kwargs)
        self.actions = actions

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in self.actions:
            return value
        if isinstance(value, list) and len(value) > MAX_ENTRIES:
            raise invalid(f"List should have at most {MAX_ENTRIES} items", "too_long")
        entries: list[dict[str, Any]] = super()._deserialize(value, attr, data, **kwargs)  # type: ignore[assignment]
        first = {entry["name"]: index for index, entry in reversed(list(enumerate(entries)))}
        twice = {
            index: {"name": [Message("Name should be given once", "name_repeated")]}
            for index, entry in enumerate(entries)
            if first[entry["name"]] != index
        }
        if twice:
            raise ma.ValidationError(twice)
        return entries
