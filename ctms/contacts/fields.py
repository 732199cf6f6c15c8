"""The types of a contact's fields: marshmallow's own, with the messages, types and limits of this API.

Every message carries the `type` that clients switch on. No message repeats the submitted value, which is personal data.
Text that PostgreSQL cannot store (U+0000, lone surrogates) is refused here.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sized
from datetime import date
from functools import cached_property
from math import isfinite
from typing import Any

import ada_url
import marshmallow as ma

from ctms import addresses
from ctms.contacts.loading import LOADED_BY_MARSHMALLOW, Loader
from ctms.words import pluralize

_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")
_UUID = re.compile(r"(?:urn:uuid:)?\{?[0-9a-f]{8}(?:-?[0-9a-f]{4}){3}-?[0-9a-f]{12}\}?", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

MAX_ENTRIES = 1000
"""Maximum number of newsletters or waitlists in one request."""
MAX_DEPTH = 50
"""Maximum nesting depth of the fields of a waitlist."""


class Message(str):
    """An error message for people, with the `type` for programs."""

    __slots__ = ("type",)
    type: str

    def __new__(cls, text: str, type: str = "value_error") -> Message:  # noqa: A002
        message = super().__new__(cls, text)
        message.type = type
        return message

    def format(self, *args: object, **kwargs: object) -> Message:
        """Return the formatted message; marshmallow formats the messages of fields and validators."""
        return Message(super().format(*args, **kwargs), self.type)


def invalid(text: str, type: str, field: str = "_schema") -> ma.ValidationError:  # noqa: A002
    """Return the exception that marshmallow collects."""
    return ma.ValidationError([Message(text, type)], field_name=field)


class Field(ma.fields.Field[Any]):
    """A field with our messages for a missing value and null. The first failing validator ends the validation."""

    default_error_messages = {  # noqa: RUF012
        "required": Message("Field required", "missing"),
        "null": Message("Must not be null", "null"),
    }

    def _validate(self, value: Any) -> None:
        for validator in self.validators:
            validator(value)


Fields = dict[str, ma.fields.Field[Any]]


class Schema(ma.Schema):
    """A schema that ignores unknown members when it loads."""

    error_messages = {"type": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    class Meta:
        unknown = ma.EXCLUDE

    @cached_property
    def _loader(self) -> Loader:
        return Loader(self)

    def load(self, data: Any, *, many: Any = None, partial: Any = None, unknown: Any = None) -> Any:
        """Load the data as marshmallow does, but faster. Raises `marshmallow.ValidationError`."""
        if many is None and partial is None and unknown is None:
            result = self._loader.load(data)
            if result is not LOADED_BY_MARSHMALLOW:
                return result
        return super().load(data, many=many, partial=partial, unknown=unknown)


class StrictSchema(Schema):
    """A schema that rejects unknown members, for requests that must not be guessed, such as a deletion."""

    error_messages = {**Schema.error_messages, "unknown": Message("Unknown field", "extra_forbidden")}  # noqa: RUF012

    class Meta:
        unknown = ma.RAISE


def _characters(number: int) -> str:
    return pluralize(number, "character")


class String(Field, ma.fields.String):
    """Unicode text of `min_length` to `max_length` characters; with `choices`, one of these."""

    default_error_messages = {"invalid": Message("Input should be a valid string", "string_type")}  # noqa: RUF012

    def __init__(
        self,
        max_length: int | None = None,
        *,
        min_length: int = 0,
        choices: tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        validators: list[Callable[[str], Any]] = []
        if max_length is not None:
            too_long = Message(f"String should have at most {{max}} {_characters(max_length)}", "string_too_long")
            validators.append(ma.validate.Length(max=max_length, error=too_long))
        if min_length:
            too_short = Message(f"String should have at least {{min}} {_characters(min_length)}", "string_too_short")
            validators.append(ma.validate.Length(min=min_length, error=too_short))
        validators.append(_check_text)
        if choices is not None:
            unknown = Message(f"Input should be one of {', '.join(map(repr, choices))}", "literal_error")
            validators.append(ma.validate.OneOf(choices, error=unknown))
        super().__init__(validate=validators, **kwargs)


def _check_text(value: str) -> None:
    if _NOT_STORABLE.search(value):
        raise invalid("String should not hold U+0000 or half a surrogate pair", "string_unicode")


class Boolean(Field, ma.fields.Boolean):
    """A boolean, in any of the spellings that marshmallow knows, in any case."""

    default_error_messages = {"invalid": Message("Input should be a valid boolean", "bool_parsing")}  # noqa: RUF012

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> bool:
        return super()._deserialize(value.lower() if isinstance(value, str) else value, attr, data, **kwargs)


class UUID(Field, ma.fields.UUID):
    """A UUID, of one `version` if given."""

    default_error_messages = {  # noqa: RUF012
        "type": Message("Input should be a valid UUID", "uuid_type"),
        "invalid_uuid": Message("Input should be a valid UUID", "uuid_parsing"),
    }

    def __init__(self, *, version: int | None = None, **kwargs: Any) -> None:
        if version is not None:
            kwargs |= {
                "validate": _require_version(version),
                "metadata": {"description": f"A UUID of version {version}."},
            }
        super().__init__(**kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> uuid.UUID:
        if not isinstance(value, str):
            raise self.make_error("type")
        if not _UUID.fullmatch(value):  # `uuid.UUID` would also read " 0x_…"
            raise self.make_error("invalid_uuid")
        return super()._deserialize(value.lower(), attr, data, **kwargs)


def _require_version(version: int) -> Callable[[uuid.UUID], None]:
    def require_version(value: uuid.UUID) -> None:
        if value.version != version:
            raise invalid(f"UUID version {version} expected", "uuid_version")

    return require_version


class Date(Field, ma.fields.Date):
    """A date, `YYYY-MM-DD` (RFC 3339, full-date)."""

    default_error_messages = {  # noqa: RUF012
        "invalid": Message("Input should be a valid date, as in 2020-01-27", "date_parsing")
    }

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> date:
        if not isinstance(value, str) or not _DATE.fullmatch(value):  # marshmallow would also read 20200127
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class AbsoluteUrl(String):
    """An absolute URL, stored in the normal form of the WHATWG URL standard (`http://Example.com` → `http://example.com/`)."""

    def __init__(self, **kwargs: Any) -> None:
        description = "An absolute URL, stored in its normal form: `http://Example.com` becomes `http://example.com/`."
        super().__init__(post_load=_normalize_url, metadata={"format": "uri", "description": description}, **kwargs)


def _normalize_url(value: str) -> str:
    try:
        return ada_url.URL(value).href
    except ValueError as error:
        raise invalid("Input should be an absolute URL, as in https://example.com/", "url_parsing") from error


class LegacyAddress(str):
    """Text that is not an address, but may stay where it is already stored. `problem` is the reason."""

    __slots__ = ("problem",)
    problem: dict[str, str]


class Address(String):
    """An e-mail address, loaded in its normal form (`ctms.addresses`).

    With `allow_legacy`, text that is not an address is loaded as `LegacyAddress`. The writer compares it with what is
    stored.
    """

    def __init__(self, *, allow_legacy: bool = False, **kwargs: Any) -> None:
        description = (
            "An e-mail address, internationalised ones too (RFC 6531); no two contacts share one, in any spelling."
        )
        if allow_legacy:
            description += " What is no address may be given again where it is stored already."
        metadata = {"format": "idn-email", "description": description}
        super().__init__(255, post_load=self._normalize, metadata=metadata, **kwargs)
        self.allow_legacy = allow_legacy

    def _normalize(self, value: str) -> str:
        try:
            return addresses.normalize(value)
        except addresses.InvalidAddressError as error:
            if not self.allow_legacy:
                raise invalid(str(error), "email_parsing") from error
            legacy = LegacyAddress(value)
            legacy.problem = {"msg": str(error), "type": "email_parsing"}
            return legacy


class Object(Field, ma.fields.Dict):
    """Any JSON object that PostgreSQL can store, nested up to `MAX_DEPTH` levels."""

    default_error_messages = {"invalid": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    def __init__(self, **kwargs: Any) -> None:
        description = (
            "What it may hold depends on the name of the waitlist: see the schemas `Fields.…`, or ask"
            f" `GET /waitlists`. It nests at most {MAX_DEPTH} levels."
        )
        super().__init__(validate=check_storable, metadata={"description": description}, **kwargs)


def check_storable(value: Any, levels: int = MAX_DEPTH) -> None:
    """Raise `ValidationError` unless PostgreSQL can store the value as JSON."""
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
            check_storable(item, levels - 1)


class Timestamp(ma.fields.DateTime):
    """An instant that the database sets, ISO 8601 with `+00:00`; never read."""

    def __init__(self) -> None:
        super().__init__(dump_only=True, allow_none=True)


class SubDocument(Field, ma.fields.Nested):
    """An object inside a contact. `actions` are keywords that may replace it (`"DELETE"`), loaded unchanged."""

    default_error_messages = {"type": Message("Input should be a valid object", "dict_type")}  # noqa: RUF012

    def __init__(self, schema: Any, *, actions: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(schema, **kwargs)
        self.actions = actions

    def _deserialize(self, value: Any, attr: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in self.actions:
            return value
        return super()._deserialize(value, attr, data, *args, **kwargs)


class List(Field, ma.fields.List[Any]):
    """A list of at most `max_items` entries."""

    default_error_messages = {"invalid": Message("Input should be a valid list", "list_type")}  # noqa: RUF012

    def __init__(self, entry: ma.fields.Field[Any], *, max_items: int, **kwargs: Any) -> None:
        super().__init__(entry, **kwargs)
        self.max_items = max_items

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        # Not a validator: validators run after every entry has been loaded.
        if isinstance(value, list):
            self.require_short(value)
        return super()._deserialize(value, attr, data, **kwargs)

    def require_short(self, value: Sized) -> None:
        """Raise `ValidationError` if there are more than `max_items`."""
        if len(value) > self.max_items:
            raise invalid(f"List should have at most {self.max_items} items", "too_long")


class Subscriptions(List):
    """A list of entries with unique names. `actions` as in `SubDocument` (`"UNSUBSCRIBE"`)."""

    def __init__(self, schema: Any, *, actions: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(SubDocument(schema), max_items=MAX_ENTRIES, **kwargs)
        self.actions = actions

    def _deserialize(self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **kwargs: Any) -> Any:
        if isinstance(value, str) and value in self.actions:
            return value
        entries: list[dict[str, Any]] = super()._deserialize(value, attr, data, **kwargs)
        first = {entry["name"]: index for index, entry in reversed(list(enumerate(entries)))}
        repeated = {
            index: {"name": [Message("Name should be given once", "name_repeated")]}
            for index, entry in enumerate(entries)
            if first[entry["name"]] != index
        }
        if repeated:
            raise ma.ValidationError(repeated)
        return entries
