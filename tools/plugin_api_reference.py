"""Generate the reference of `ctms.plugins` and `ctms.testing` from their exports and docstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ctms.plugins
import ctms.testing
from ctms.environment import REQUIRED
from ctms.errors import ApiError
from ctms.readers import SCALARS
from ctms.testing import fixtures

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PAGE = REFERENCE / "plugin-api.md"
TESTING_PAGE = REFERENCE / "testing-api.md"
WIDTH = 100
_FIXTURE = type(fixtures.app)

INTRODUCTION = """\
# `ctms.plugins`

<!-- Written by `tox -e reference` from ctms/plugins.py. -->

Everything that a plugin may import from CTMS, except [`ctms.testing`](testing-api.md) in its tests. These names are
stable; anything else may change in any version. Each [hook](hooks/README.md) has its own page.
"""

TESTING_INTRODUCTION = """\
# `ctms.testing`

<!-- Written by `tox -e reference` from ctms/testing. -->

The exports of `ctms.testing`. [Testing plugins](testing.md) shows how to use them, and lists the fixtures.
"""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Hooks": ("hookimpl", "RegistrationError"),
    "Settings": ("setting",),
    "Waitlists": ("Waitlist", "Message"),
    "Newsletters": ("Newsletter",),
    "Backends and deletion handlers": ("Backend", "DeletionHandler", "ContactState", "Identities"),
    "Outcomes": (*("Outcome", "Outcomes", "Done", "TryLater", "SlowDown", "Refused", "Accepted", "Pause"),),
    "Routes": ("Blueprint", "fetch_scalar", "connection", "ScalarQuery"),
    "Permissions and tables": ("Permission", "Migrations"),
    "Database outside routes": ("reading", "writing", "Connection"),
    "Errors of routes": ("ApiError", "BadRequest", "Forbidden", "NotFound", "Conflict", "Invalid"),
    "Commands": ("OperatorError",),
    "Health checks": ("HealthCheck",),
}
"""The headings of the page, and the exports below each."""

VALUES = {
    "hookimpl": "Marks a function or method of a plugin as the implementation of the hook of its name. With"
    " `optionalhook=True` a hook that this version of CTMS does not have is ignored.",
    "Connection": "A psycopg connection (`psycopg.Connection`), whose rows are tuples.",
    "Identities": "The nine identities of a contact, by name, as `GET /identity/{email_id}` returns them.",
    "Outcome": "Any of `Done`, `TryLater`, `SlowDown`, `Refused`, `Accepted` and `Pause`.",
    "Outcomes": "The result of a call: one `Outcome` for all contacts, or a mapping with one for each `email_id`; None"
    " means done. Contacts missing from a mapping are retried later.",
}
"""Descriptions of exports without a docstring."""

TYPES = """\
A plugin's settings are the fields of a dataclass called `Settings`, next to its hooks:

```python
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from ctms.plugins import setting


@dataclass(frozen=True)
class Settings:
    key: str = setting("KEY", "The API key.", secret=True)
    url: str | None = setting("URL", "URL of the service. If unset, it is not called.", default=None)
    seats: int = setting("SEATS", "Seats for each person.", default=3)
    every: Literal["day", "hour"] = setting("EVERY", "Interval of the rotation.", default="day")
    patience: timedelta = setting("PATIENCE", "Timeout of a request.", default=timedelta(seconds=10))
    lists: list[str] = setting("LISTS", "Names of newsletters.", default=list)
```

The variables of the plugin `acme` are `CTMS_PLUGIN_ACME_KEY` and so on; each can be read from a file
(`CTMS_PLUGIN_ACME_KEY_FILE`), and an empty one counts as unset. An invalid value prevents the start, with a message
that names the variable and never shows the value. So does a missing setting, here `KEY`, and an unknown variable with
the plugin's prefix.

| Type | The variable |
| --- | --- |
"""

DATABASE = """\
Access to the database from each part of a plugin:

| Part | `fetch_scalar`, `connection` | `reading`, `writing` |
| --- | --- | --- |
| a guarded view | yes: the guard's connection | `RuntimeError`: the transaction would be committed before the \
caller is authorized |
| a command under `flask ctms` | `RuntimeError` | yes |
| a health check | `RuntimeError` | yes, within its `timeout` |
| `push` and `fetch` of a backend, `erase` and `verify` of a deletion handler | `RuntimeError` | yes |
| the rules of a waitlist | no: rules do no I/O | `RuntimeError` |
| a hook, at start | `RuntimeError` | `RuntimeError` |
| a migration | `RuntimeError` | `op` of Alembic |

A thread that you start has no app context: `RuntimeError`.

"""

MORE_TYPES = """\
| an enum | must be one of its values if all are text, else one of its members' names |
| `Literal[…]` | must be one of these |
| `list[X]`, `tuple[X, ...]`, `Sequence[X]` (a tuple), `set[X]`, `frozenset[X]` | has entries, separated by commas, \
each of the type `X`: one of these types, but no list and no `timedelta` |
| `X \\| None` | as `X`; None if that is the default |

For other types set `convert`, a function that converts the text to the value, or `read`.

"""


def page() -> str:
    """Return the page. Raises `LookupError` if an export is in no group."""
    grouped = [name for names in GROUPS.values() for name in names]
    lost = sorted(set(ctms.plugins.__all__) ^ set(grouped))
    if lost:
        raise LookupError(f"exported or described, not both: {', '.join(lost)}")
    return INTRODUCTION + "".join(f"\n## {heading}\n\n{_group(heading, names)}" for heading, names in GROUPS.items())


def testing_page() -> str:
    """Return the page about `ctms.testing`: the contracts, then everything else."""
    contracts = [name for name in ctms.testing.__all__ if name.endswith("Contract")]
    others = [name for name in ctms.testing.__all__ if name not in contracts]
    parts = [TESTING_INTRODUCTION, "\n## Contracts\n", *map(_contract, contracts), "\n## Helpers\n"]
    parts += [f"\n{_export(name, getattr(ctms.testing, name))}" for name in others]
    return "".join(parts)


def _contract(name: str) -> str:
    contract = getattr(ctms.testing, name)
    members = [(member, getattr(contract, member)) for base in contract.__mro__[:-1] for member in vars(base)]
    tests = [_row(member, found) for member, found in members if member.startswith("test_")]
    fixtures = [_row(member, found) for member, found in members if isinstance(found, _FIXTURE)]
    words = f"\n### `{name}`\n\n{_text(contract)}\n\n"
    return words + "".join(
        ["| Fixture | Value |\n| --- | --- |\n", *fixtures, "\n| Test | Requirement |\n| --- | --- |\n", *tests]
    )


def _row(name: str, found: Any) -> str:
    first = _text(found).split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
    return f"| `{name}` | {first} |\n"


def _group(heading: str, names: tuple[str, ...]) -> str:
    types = ""
    if heading == "Settings":
        rows = "".join(f"| `{_type_name(kind)}` | {wants} |\n" for kind, (_, wants) in SCALARS.items())
        types = f"{TYPES}{rows}{MORE_TYPES}"
    if heading == "Database outside routes":
        types = DATABASE
    return types + "\n".join(_export(name, getattr(ctms.plugins, name)) for name in names)


def _type_name(kind: type) -> str:
    return kind.__name__ if kind.__module__ in {"builtins", "pathlib"} else f"{kind.__module__}.{kind.__name__}"


def _export(name: str, exported: Any) -> str:
    if name in VALUES:
        return f"### `{name}`\n\n{VALUES[name]}\n"
    status = ""
    if inspect.isclass(exported) and issubclass(exported, ApiError) and exported is not ApiError:
        status = f"Responds with the status {exported.status}. "
    words = f"### `{name}`\n\n{_signature(name, exported)}{status}{_text(exported)}\n"
    return words + "".join(
        f"\n{_signature(f'{name}.{method}', found)}{_text(found)}\n" for method, found in _methods(exported)
    )


def _methods(exported: Any) -> Iterator[tuple[str, Any]]:
    if inspect.isclass(exported):
        for name, found in vars(exported).items():
            if not name.startswith("_") and inspect.isfunction(found):
                yield name, found


def _signature(name: str, exported: Any) -> str:
    try:
        signature = inspect.signature(exported)
    except ValueError:
        return ""
    parameters = [one for one in signature.parameters.values() if one.name != "self"]
    shown = [_parameter(one) for one in parameters]
    named = next((index for index, one in enumerate(parameters) if one.kind is one.KEYWORD_ONLY), None)
    if named is not None and all(one.kind is not one.VAR_POSITIONAL for one in parameters):
        shown.insert(named, "*")
    returned = signature.return_annotation
    ending = "" if inspect.isclass(exported) or returned is signature.empty else f" -> {returned}"
    line = f"{name}({', '.join(shown)}){ending}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {one},\n" for one in shown) + f"){ending}"
    return f"```text\n{line}\n```\n\n"


def _parameter(one: inspect.Parameter) -> str:
    stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    annotation = one.annotation
    if hasattr(annotation, "__forward_arg__"):
        annotation = annotation.__forward_arg__
    written = str(annotation).strip("\"'")
    kind = "" if annotation is one.empty else f": {written}"
    if one.default is REQUIRED:
        return f"{one.name}{kind} = ..."
    if one.default is one.empty:
        return f"{stars}{one.name}{kind}"
    return f"{one.name}{kind} = {one.default!r}"


def _text(exported: Any) -> str:
    return inspect.getdoc(exported) or ""


if __name__ == "__main__":
    PAGE.write_text(page())
    TESTING_PAGE.write_text(testing_page())
