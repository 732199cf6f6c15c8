"""Registrations of plugins: typed declarations that are validated when they are created."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import marshmallow as ma

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}", re.ASCII)
_NAME_OF_PERMISSION = re.compile(r"[a-z][a-z0-9_.:-]{0,254}", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}|[A-Za-z]{2}[-_][A-Za-z]{2}", re.ASCII)

Fields = dict[str, Any]


class NotJson(TypeError):
    """A value in the rules of a waitlist that JSON does not have."""


class RegistrationError(Exception):
    """An invalid declaration, raised when it is created; the message says what to change."""


def check_name(kind: str, name: object) -> None:
    """Raise `RegistrationError` for an invalid name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RegistrationError(
            f"the name of a {kind} consists of lower-case letters, digits, - and _, begins with a letter"
            f" and has at most 63 characters, not {name!r}"
        )


def check_callable(kind: str, what: str, value: object) -> None:
    """Raise `RegistrationError` if the value is not callable."""
    if not callable(value):
        raise RegistrationError(f"{what} of a {kind} must be callable, not {type(value).__name__}")


def not_json(value: Any) -> str | None:
    """Return the type of the first value that JSON does not have, such as `Decimal`, or None."""
    if isinstance(value, Mapping):
        return next((kind for item in value.items() for part in item if (kind := not_json(part))), None)
    if isinstance(value, list | tuple):
        return next((kind for part in value if (kind := not_json(part))), None)
    try:
        json.dumps(value, allow_nan=False)
    except TypeError:
        return type(value).__name__
    except ValueError:
        return "float that is not finite"
    return None


_UNKNOWN: Mapping[str, Any] = {"accept": ma.INCLUDE, "refuse": ma.RAISE, "drop": ma.EXCLUDE}


@dataclass(frozen=True, kw_only=True)
class Waitlist:
    """The rules for the `fields` of a waitlist.

    `name` is a waitlist's name or a pattern: `relay-*` matches all names with that prefix, `*` matches every waitlist.
    The most specific one applies: the exact name, else the pattern with the longest prefix.

    The rules are a marshmallow `schema` (class or instance), a function `check` that takes the fields and returns those
    to store, or both, the schema first. The stored value is JSON: what the schema dumps of what it loaded. Errors are
    `marshmallow.ValidationError`, keyed by field. `unknown` determines the treatment of fields that the schema does not
    name: `"accept"` keeps them, `"refuse"` makes them errors, `"drop"` drops them. A schema with a contradicting
    `Meta.unknown` is refused. `json_schema` describes the fields if the marshmallow schema does not; `title` and
    `description` are for people. Rules must not do I/O: they run in requests, and when the service starts.
    """

    name: str
    title: str
    description: str = ""
    schema: type[ma.Schema] | ma.Schema | None = None
    check: Callable[[Fields], Fields] | None = None
    unknown: Literal["accept", "refuse", "drop"] = "refuse"
    json_schema: Mapping[str, Any] | None = None

    _loader: ma.Schema | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or len(self.name) > 255 or "*" in self.name[:-1]:
            raise RegistrationError(
                f"the name of a waitlist has 1 to 255 characters, and a * only at the end, not {self.name!r}"
            )
        if not self.title:
            raise RegistrationError(f"the waitlist {self.name!r} needs a title")
        if self.unknown not in _UNKNOWN:
            raise RegistrationError(f"unknown is 'accept', 'refuse' or 'drop', not {self.unknown!r}")
        if self.schema is None and self.check is None:
            raise RegistrationError(f"the waitlist {self.name!r} has no rules: give a schema or a check")
        if self.schema is None and self.unknown == "drop":
            raise RegistrationError(
                f"the waitlist {self.name!r} drops unknown fields, but has no schema that names the known ones"
            )
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
        said = schema.unknown if schema.unknown != ma.RAISE else getattr(type(schema).Meta, "unknown", None)
        if said is not None and said != _UNKNOWN[self.unknown]:
            meant = next(choice for choice, unknown in _UNKNOWN.items() if unknown == said)
            raise RegistrationError(
                f"schema of the waitlist {self.name!r} has unknown={said.upper()}, and the waitlist has"
                f" unknown={self.unknown!r}: set unknown={meant!r}, or remove it from the schema"
            )
        return schema

    @property
    def loader(self) -> ma.Schema | None:
        """The marshmallow schema, instantiated once."""
        return self._loader

    @property
    def prefix(self) -> str | None:
        """The prefix of the waitlists' names, for a pattern."""
        return self.name[:-1] if self.name.endswith("*") else None

    def load(self, fields: Fields) -> Fields:
        """Return the fields to store. Raises `marshmallow.ValidationError`, and any exception of faulty rules."""
        if self._loader is not None:
            loaded = self._loader.load(fields, unknown=_UNKNOWN[self.unknown])
            fields = self._as_json(self._loader, loaded)
        if self.check is not None:
            fields = self.check(fields)
            if not isinstance(fields, dict):
                raise TypeError(f"check of the waitlist {self.name!r} returned no fields but {type(fields).__name__}")
        try:  # here, where the rules are named, not when the fields are stored
            json.dumps(fields, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            kind = "value that contains itself" if "ircular" in str(error) else not_json(fields) or "value"
            raise NotJson(f"the rules of the waitlist {self.name!r} make a {kind}, which JSON does not have") from error
        return fields

    @staticmethod
    def _as_json(loader: ma.Schema, loaded: Any) -> Fields:
        """Return the loaded fields as JSON has them: a date as text, each field under its data key."""
        known = {field.attribute or name for name, field in loader.fields.items()}
        others = {k: v for k, v in loaded.items() if k not in known} if isinstance(loaded, Mapping) else {}
        return {**others, **loader.dump(loaded)}


@dataclass(frozen=True, kw_only=True)
class Newsletter:
    """A newsletter that contacts can subscribe to: the `name` of their subscriptions is its `slug`.

    `languages` are those in which it is published, as a subscription's `lang` has them, such as `en` or `pt-BR`; empty
    if they are not known. A newsletter that is not `active` is retired: with `CTMS_NEWSLETTERS=enforce` it takes no new
    subscriptions, and stored ones can be read, changed and unsubscribed. `requires_double_opt_in` informs front ends
    that people must confirm their address; the service does not check it. `vendor_ids` has the newsletter's ids in
    other systems, by the name of the system. `title` and `description` are for people.
    """

    slug: str
    title: str
    description: str = ""
    languages: Sequence[str] = ()
    active: bool = True
    requires_double_opt_in: bool = False
    vendor_ids: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        slug = self.slug
        valid = isinstance(slug, str) and 0 < len(slug) <= 255 and slug.isprintable() and slug == slug.strip()
        if not valid or "*" in slug:
            raise RegistrationError(
                "the slug of a newsletter has 1 to 255 printable characters, no outer white space and no *, which would"
                f" not be a pattern, not {slug!r}"
            )
        for member in ("title", "description"):
            self._require(isinstance(getattr(self, member), str), f"has a {member} that is not text")
        self._require(bool(self.title.strip()), "needs a title")
        for member in ("active", "requires_double_opt_in"):
            self._require(isinstance(getattr(self, member), bool), f"has {member} that is neither true nor false")
        self._check_languages()
        ids = self.vendor_ids
        texts = isinstance(ids, Mapping) and all(isinstance(one, str) and one for item in ids.items() for one in item)
        self._require(texts, "has vendor_ids that do not map names of systems to ids, all of them text")

    def _check_languages(self) -> None:
        listed = isinstance(self.languages, Sequence) and not isinstance(self.languages, str | bytes)
        self._require(listed, "has languages that are not a list")
        invalid = [one for one in self.languages if not isinstance(one, str) or not _LANGUAGE.fullmatch(one)]
        self._require(not invalid, f"has invalid languages, {invalid}: write them as en or pt-BR")
        self._require(len(set(self.languages)) == len(self.languages), "has a language twice")

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise RegistrationError(f"the newsletter {self.slug!r} {problem}")

    @property
    def name(self) -> str:
        """The slug, which is unique."""
        return self.slug


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    """A check for `/__heartbeat__`: `check()` returns None if healthy, else a description of the problem for operators.

    `timeout` is in seconds.
    """

    name: str
    check: Callable[[], str | None]
    timeout: float = 2.0

    def __post_init__(self) -> None:
        check_name("health check", self.name)
        check_callable("health check", "check", self.check)
        if not 0 < self.timeout <= 10:
            raise RegistrationError(f"timeout of a health check is at most 10 seconds, not {self.timeout!r}")


@dataclass(frozen=True, kw_only=True)
class Permission:
    """A permission that routes of the plugin require. `description` describes to operators what it allows.

    `flask db upgrade` stores it. From then on the role `admin` has it, and `flask ctms roles grant` grants it to
    others.
    """

    name: str
    description: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME_OF_PERMISSION.fullmatch(self.name):
            raise RegistrationError(
                "the name of a permission consists of lower-case letters, digits and - _ . :, begins with a letter"
                f" and has at most 255 characters, not {self.name!r}"
            )
        if not isinstance(self.description, str) or not self.description.strip():
            raise RegistrationError(f"the permission {self.name!r} needs a description")


@dataclass(frozen=True, kw_only=True)
class Migrations:
    """The plugin's Alembic migrations: the `folder` with the files of its linear revisions.

    They create tables in the plugin's own database schema, `plugin_` and the plugin's name. `flask db upgrade` runs
    them after those of CTMS.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not isinstance(self.folder, Path):
            raise RegistrationError(f"folder of the migrations must be a Path, not {type(self.folder).__name__}")
        if not self.folder.is_dir():
            raise RegistrationError(f"the folder {self.folder} of the migrations does not exist: is it in the wheel?")

    @property
    def name(self) -> str:
        """The path of the folder, which is unique."""
        return str(self.folder.resolve())
