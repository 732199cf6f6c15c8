"""Reading settings from environment variables into frozen dataclasses whose fields say how.

Each may also come from a file, named by the same variable with `_FILE` behind it (as container secrets do).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import marshmallow as ma
from environs import EnvError, FileAwareEnv

from ctms.errors import SettingsError

T = TypeVar("T")

_WANTED = {"int": "must be a whole number", "bool": "must be true or false", "float": "must be a number"}


@dataclass(frozen=True)
class Setting:
    """How one field is read: variable, what it means, `environs` reader, check, conversion, whether it is secret.

    `check` raises `marshmallow.ValidationError` with what is wrong, worded to follow the variable's name, and
    without the value, which may be secret; `convert` may raise so too.
    """

    variable: str
    help: str
    read: str = "str"
    check: Callable[[Any], None] | None = None
    convert: Callable[[Any], Any] | None = None
    secret: bool = False

    def value(self, env: FileAwareEnv, default: Any) -> Any:
        """Read it from `env`; `default` when it is not set. Raises as `environs`, `check` and `convert` do."""
        raw = env.str(self.variable, None)
        if raw is None or not str(raw).strip():
            return default
        value = getattr(env, self.read)(
            self.variable, validate=self.check, error_messages={"invalid": _WANTED.get(self.read, "cannot be read")}
        )
        return self.convert(value) if self.convert else value


def setting(variable: str, help: str, *, default: Any, **how: Any) -> Any:  # noqa: A002
    """Make a dataclass field that is read from `variable`; `how` as the fields of `Setting`.

    A callable `default` is called when the value is needed.
    """
    made = {"default_factory": default} if callable(default) else {"default": default}
    return field(metadata={"setting": Setting(variable, help, **how)}, **made)


def declared(cls: type) -> list[tuple[str, Setting, Any]]:
    """All settings of a dataclass, in order: field name, how it is read, default."""
    found = []
    for item in dataclasses.fields(cls):
        made = item.default_factory
        default = item.default if made is dataclasses.MISSING else made()
        found.append((item.name, item.metadata["setting"], default))
    return found


def read_settings(cls: type[T], prefix: str = "") -> T:
    """Read a dataclass from the environment, each variable with `prefix` before it.

    Raises `SettingsError`, one line that names each variable that cannot be used and why; never its value.
    """
    env = FileAwareEnv(eager=True, strip_whitespace=True)
    values: dict[str, Any] = {}
    problems = []
    for name, how, default in declared(cls):
        prefixed = dataclasses.replace(how, variable=f"{prefix}{how.variable}")
        try:
            values[name] = prefixed.value(env, default)
        except ma.ValidationError as error:
            problems.append(f"{prefixed.variable} {_reason(error)}")
        except EnvError as error:
            problems.append(f"{prefixed.variable} {_reason(error.__cause__ or error)}")
        except (ValueError, OSError):
            problems.append(f"{prefixed.variable}_FILE must name a readable file")
    if problems:
        raise SettingsError("; ".join(problems))
    return cls(**values)


def _reason(error: BaseException) -> str:
    messages = error.messages if isinstance(error, ma.ValidationError) else ["cannot be read"]
    return "; ".join(str(message) for message in messages)
