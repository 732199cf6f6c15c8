"""Reading settings from environment variables into frozen dataclasses whose fields define them.

Each may also be read from a file, named by the same variable with the suffix `_FILE` (for container secrets).
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import marshmallow as ma
from environs import EnvError, FileAwareEnv

from ctms.errors import SettingsError
from ctms.readers import Reader, reader_by_name, reader_for

T = TypeVar("T")

REQUIRED: Any = dataclasses.MISSING
"""The default of a required setting."""

_FILE = "_FILE"


class DeclarationError(TypeError):
    """A class of settings that cannot be read from variables; the message names the field, for the author."""


class _MissingError(SettingsError):
    """A required setting is not set."""


@dataclass(frozen=True)
class Setting:
    """The definition of a setting: variable, help, `environs` reader, check, conversion, whether it is secret.

    Without `read` and `convert` the field's annotation determines the type. `check` raises
    `marshmallow.ValidationError` with a message that follows the variable's name, without the value, which may be
    secret; `convert` may raise it too.
    """

    variable: str
    help: str
    read: str | None = None
    check: Callable[[Any], None] | None = None
    convert: Callable[[Any], Any] | None = None
    secret: bool = False

    def value(self, env: FileAwareEnv, reader: Reader, default: Any) -> Any:
        """Read it from `env`; return `default` if it is not set. Raises `SettingsError`, without the value."""
        try:
            raw = env.str(self.variable, None)
        except (ValueError, OSError):
            raise SettingsError(f"{self.variable}{_FILE} must name a readable file") from None
        if raw is None or not str(raw).strip():
            if default is REQUIRED:
                raise _MissingError(f"{self.variable} is missing")
            return default
        try:
            value = getattr(env, reader.method)(self.variable, **reader.options)
            value = reader.convert(value) if reader.convert else value
        except (EnvError, ma.ValidationError):
            raise SettingsError(f"{self.variable} {reader.expected}") from None
        try:
            if self.check:
                self.check(value)
            return self.convert(value) if self.convert else value
        except ma.ValidationError as error:
            raise SettingsError(f"{self.variable} {'; '.join(map(str, _flat(error.messages)))}") from error
        except Exception as error:  # noqa: BLE001  of a plugin's function, whose message may repeat the value
            raise SettingsError(f"{self.variable} cannot be read ({type(error).__name__})") from None


def setting(
    variable: str,
    help: str,  # noqa: A002
    *,
    default: Any = REQUIRED,
    check: Callable[[Any], None] | None = None,
    convert: Callable[[Any], Any] | None = None,
    read: str | None = None,
    secret: bool = False,
) -> Any:
    """Define a dataclass field that is read from `variable`, with the annotated type.

    Without a `default` the variable is required; a callable `default` is called when the value is needed. `secret`
    masks the value in output. `check` is called with the value and raises `marshmallow.ValidationError`, with a message
    that follows the variable's name and does not repeat the value.

    If the annotation does not determine the type, `convert` converts the text to the value, or `read` names a reader of
    `environs`, such as `"json"`; with both, `convert` gets the result of the reader.
    """
    options: dict[str, Any] = {"repr": not secret}
    if default is REQUIRED:
        options["kw_only"] = True  # may follow fields with defaults
    elif callable(default):
        options["default_factory"] = default
    elif isinstance(default, list | dict | set):
        options["default_factory"] = lambda: copy(default)
    else:
        options["default"] = default
    return field(metadata={"setting": Setting(variable, help, read, check, convert, secret)}, **options)


def declared(cls: type) -> list[tuple[str, Setting, Any]]:
    """Return all settings of a dataclass, in order: field name, definition, default, which may be `REQUIRED`.

    Raises `DeclarationError` for a field that was not created by `setting()`.
    """
    found = []
    for item in dataclasses.fields(cls):
        if "setting" not in item.metadata:
            raise DeclarationError(f"the field {item.name} of its {cls.__name__} is not created by setting()")
        made = item.default_factory
        default = item.default if made is dataclasses.MISSING else made()
        found.append((item.name, item.metadata["setting"], default))
    return found


def prefixed(cls: type, prefix: str) -> list[tuple[str, Setting, Any]]:
    """Return the result of `declared` with `prefix` added to each variable."""
    return [
        (name, dataclasses.replace(how, variable=f"{prefix}{how.variable}"), default)
        for name, how, default in declared(cls)
    ]


def read_values(cls: type, prefix: str = "") -> dict[str, Any]:
    """Read the fields of a dataclass from the environment, each variable with `prefix`.

    Raises `SettingsError`, one line that names each invalid variable and the reason, never its value. Raises
    `DeclarationError` if the class does not define how a field is read.
    """
    env = FileAwareEnv(eager=True, strip_whitespace=True)
    readers = _readers(cls)
    values: dict[str, Any] = {}
    problems = []
    settings = prefixed(cls, prefix)
    for name, how, default in settings:
        try:
            values[name] = how.value(env, readers[name], default)
        except _MissingError as error:
            slips = set(set_variables(prefix)) - variables(settings) if prefix else ()
            close = close_to(how.variable, sorted(slips), prefix)
            problems.append(error.message + (f" ({close} is set: did you mean {how.variable}?)" if close else ""))
        except SettingsError as error:
            problems.append(error.message)
    if problems:
        raise SettingsError("; ".join(problems))
    return values


def read_settings(cls: type[T], prefix: str = "") -> T:
    """Read a dataclass from the environment as `read_values` does."""
    return cls(**read_values(cls, prefix))


def override(cls: type, field: str, text: str) -> None:
    """Set the variable of one field to `text` in this process's environment, overriding its value or file.

    Raises `SettingsError`, and changes nothing, if the text is invalid.
    """
    how, default = next((how, default) for name, how, default in declared(cls) if name == field)
    names = (how.variable, f"{how.variable}{_FILE}")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[how.variable] = text
    try:
        how.value(FileAwareEnv(eager=True, strip_whitespace=True), _readers(cls)[field], default)
    except SettingsError:
        del os.environ[how.variable]
        os.environ.update(before)
        raise


def variables(declared: Iterable[tuple[str, Setting, Any]]) -> set[str]:
    """Return all variables that settings are read from, including those that name files."""
    return {f"{how.variable}{end}" for _, how, _ in declared for end in ("", _FILE)}


def close_to(variable: str, known: Iterable[str], prefix: str, cutoff: float = 0.6) -> str | None:
    """Return which of the `known` variables may be meant by `variable`; all begin with `prefix`."""
    ends = {name.removeprefix(prefix): name for name in known if name.startswith(prefix)}
    close = difflib.get_close_matches(variable.removeprefix(prefix), ends, 1, cutoff)
    return ends[close[0]] if close else None


def set_variables(prefix: str) -> list[str]:
    """Return the variables of the environment that begin with `prefix` and are not empty, sorted by name."""
    return sorted(name for name, value in os.environ.items() if name.startswith(prefix) and value.strip())


def _readers(cls: type) -> Mapping[str, Reader]:
    hints: dict[str, Any] | None = None
    readers = {}
    for name, how, _ in declared(cls):
        if how.read is None and how.convert is not None:
            readers[name] = Reader("str", "must be text")
            continue
        try:
            if hints is None and (how.read is None or how.read == "list"):
                hints = typing.get_type_hints(cls)
            annotation = (hints or {}).get(name)
            readers[name] = reader_by_name(how.read, annotation) if how.read else reader_for(annotation)
        except (TypeError, NameError, AttributeError) as error:
            raise DeclarationError(f"the field {name} of its {cls.__name__} cannot be read: {error}") from error
        if not hasattr(FileAwareEnv, readers[name].method):
            raise DeclarationError(f"the field {name} of its {cls.__name__} has an unknown reader, read={how.read!r}")
    return readers


def _flat(messages: Any) -> Iterator[Any]:
    """Yield the messages of a validation error, however they are nested."""
    if isinstance(messages, Mapping):
        messages = messages.values()
    elif isinstance(messages, str) or not isinstance(messages, Iterable):
        yield messages
        return
    for message in messages:
        yield from _flat(message)
