"""What plugins hand over: typed declarations that are checked when they are made."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import marshmallow as ma

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)

Fields = dict[str, Any]


class RegistrationError(Exception):
    """A declaration that cannot be used; the message says what to change. Raised while it is made."""


def check_name(kind: str, name: object) -> None:
    """Raise `RegistrationError` for a name that cannot be used."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"the name of a {kind} is made of lower-case letters, digits, - and _, begins with a letter"
            f" and has 63 characters at most, not {name!r}"
        )


def check_callable(kind: str, what: str, value: object) -> None:
    """Raise `RegistrationError` for what cannot be called."""
    if not callable(value):
        raise RegistrationError(f"{what} of a {kind} must be callable, not {type(value).__name__}")


@dataclass(frozen=True, kw_only=True)
class Waitlist:
    """The rules for the `fields` of a waitlist.

    `name` is that of one waitlist, or a pattern: `relay-*` are all whose names begin so, `*` is every waitlist. The
    most exact one decides: the name itself, else the pattern with the longest beginning.

    The rules are a marshmallow `schema` (class or instance), a function `check` that takes the fields and returns
    those to store, or both, the schema first. Stored is JSON: what the schema dumps of what it loaded. Errors are
    `marshmallow.ValidationError`, keyed by field. `unknown` says what becomes of fields that the schema does not
    name: `"accept"` keeps them, `"refuse"` makes them errors. `json_schema` describes the fields where the
    marshmallow schema does not; `title` and `description` are for people. Rules do no I/O: they run in requests.
    """

    name: str
    title: str
    description: str = ""
    schema: type[ma.Schema] | ma.Schema | None = None
    check: Callable[[Fields], Fields] | None = None
    unknown: Literal["accept", "refuse"] = "refuse"
    json_schema: Mapping[str, Any] | None = None

    _loader: ma.Schema | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or len(self.name) > 255 or "*" in self.name[:-1]:
            raise RegistrationError(
                f"the name of a waitlist has 1 to 255 characters, and a * at the end only, not {self.name!r}"
            )
        if not self.title:
            raise RegistrationError(f"the waitlist {self.name!r} needs a title")
        if self.unknown not in {"accept", "refuse"}:
            raise RegistrationError(f"unknown is 'accept' or 'refuse', not {self.unknown!r}")
        if self.schema is None and self.check is None:
            raise RegistrationError(f"the waitlist {self.name!r} has no rules: give a schema or a check")
        if self.check is not None:
            check_callable("waitlist", "check", self.check)
        object.__setattr__(self, "_loader", self._make_loader())

    def _make_loader(self) -> ma.Schema | None:
        schema = self.schema() if isinstance(self.schema, type) else self.schema
        if schema is None:
            return None
        if not isinstance(schema, ma.Schema):
            raise RegistrationError(
                f"schema of the waitlist {self.name!r} must be a marshmallow schema, not {type(schema).__name__}"
            )
        return schema

    @property
    def beginning(self) -> str | None:
        """What the names of the waitlists begin with, for a pattern."""
        return self.name[:-1] if self.name.endswith("*") else None

    def load(self, fields: Fields) -> Fields:
        """Return the fields to store. Raises `marshmallow.ValidationError`, and whatever a faulty rule raises."""
        if self._loader is not None:
            loaded = self._loader.load(fields, unknown=ma.INCLUDE if self.unknown == "accept" else ma.RAISE)
            fields = self._as_json(self._loader, loaded)
        if self.check is not None:
            fields = self.check(fields)
            if not isinstance(fields, dict):
                raise TypeError(f"check of the waitlist {self.name!r} returned no fields but {type(fields).__name__}")
        json.dumps(fields, allow_nan=False)  # raises here, where the rules are named, not when the fields are stored
        return fields

    @staticmethod
    def _as_json(loader: ma.Schema, loaded: Any) -> Fields:
        """Return what the schema loaded as JSON has it: a date as text, each field under its outer name."""
        known = {field.attribute or name for name, field in loader.fields.items()}
        others = {k: v for k, v in loaded.items() if k not in known} if isinstance(loaded, Mapping) else {}
        return {**others, **loader.dump(loaded)}


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A check for `/__heartbeat__`: `check()` returns None when all is well, else what is wrong, for operators.

    `timeout` is in seconds.
    """

    name: str
    check: Callable[[], str | None]
    timeout: float = 2.0

    def __post_init__(self) -> None:
        check_name("health check", self.name)
        check_callable("health check", "check", self.check)
        if not 0 < self.timeout <= 10:
            raise RegistrationError(f"timeout of a health check is 10 seconds at most, not {self.timeout!r}")
