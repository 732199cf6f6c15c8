"""What the fields of each waitlist may be, as JSON Schema: for `GET /waitlists` and in the entries that requests hold.

The rules themselves are a plugin's; what it says of them is checked here, when the service starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs
import marshmallow as ma
from apispec import APISpec
from apispec.core import Components
from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.common import get_fields
from apispec.ext.marshmallow.openapi import OpenAPIConverter

from ctms.contacts.waitlists import Waitlists
from ctms.errors import PluginError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Waitlist

Schema = dict[str, Any]

_COMPONENT = "Fields."
_SPECIAL = re.compile(r"[\^$\\.*+?()\[\]{}|]")


class _Converter(OpenAPIConverter):
    """apispec's converter, for what a schema loads."""

    def schema2jsonschema(self, schema: ma.Schema) -> Schema:
        """Describe what the schema loads: without what it only dumps, and with what it does with unknown members."""
        fields = get_fields(schema, exclude_dump_only=True)
        described: Schema = self.fields2jsonschema(fields, partial=schema.partial)  # type: ignore[no-untyped-call]
        described["additionalProperties"] = schema.unknown != ma.RAISE
        words = vars(type(schema)).get("__doc__")
        return {"description": " ".join(words.split()), **described} if words else described

    def field2pattern(self, field: ma.fields.Field[Any], **_: Any) -> Schema:
        """Give the pattern of a field where JSON Schema can say it: Python's have flags and ways of their own."""
        found: Schema = super().field2pattern(field)
        flags = any(v.regex.flags & ~re.UNICODE for v in field.validators if isinstance(v, ma.validate.Regexp))
        if flags or not found:
            return {}
        anchored = {"pattern": f"^(?:{found['pattern']})"}  # marshmallow matches from the beginning
        try:
            jsonschema_rs.Draft202012Validator(anchored, offline=True)
        except jsonschema_rs.ValidationError:
            return {}
        return anchored


class _Marshmallow(MarshmallowPlugin):
    """apispec's plugin with our converter; nested schemas are written out where they are."""

    Converter = _Converter

    def __init__(self) -> None:
        super().__init__(schema_name_resolver=lambda _schema: "")


def fields_schema(registered: Registered[Waitlist]) -> Schema:
    """Return the JSON Schema (2020-12) of a waitlist's fields: what its plugin says, else as its schema reads them.

    Raises `PluginError` when there is none, naming the plugin and the cure.
    """
    waitlist = registered.value
    try:
        given = waitlist.json_schema
        described = _from_marshmallow(waitlist) if given is None else dict(given)
        json.dumps(described, allow_nan=False)
        jsonschema_rs.Draft202012Validator(described, offline=True)
    except Exception as error:
        reason = (
            error.message if isinstance(error, jsonschema_rs.ValidationError) else f"{type(error).__name__}: {error}"
        )
        raise PluginError(
            f"{registered.plugin.title}: ctms_waitlists yields the waitlist {waitlist.name!r}, whose fields have no"
            f" JSON Schema ({reason}): give a json_schema that is one, without references to elsewhere",
            registered.plugin.name,
        ) from error
    return described


def _from_marshmallow(waitlist: Waitlist) -> Schema:
    if waitlist.schema is None:
        return {"type": "object"}
    schema = waitlist.schema() if isinstance(waitlist.schema, type) else waitlist.schema
    plugin = _Marshmallow()
    APISpec(title="", version="", openapi_version="3.1.0", plugins=[plugin])
    assert plugin.converter is not None  # noqa: S101  `APISpec` has just made it
    described: Schema = plugin.converter.schema2jsonschema(schema)  # type: ignore[no-untyped-call]
    return {**described, "additionalProperties": waitlist.unknown == "accept"}


def list_of(waitlists: Waitlists) -> list[Schema]:
    """Return what `GET /waitlists` answers, by exactness. Raises `PluginError` as `fields_schema` does."""
    return [
        {
            "name": one.value.name,
            "title": one.value.title,
            "description": one.value.description,
            "plugin": one.plugin.name,
            "schema": fields_schema(one),
        }
        for one in waitlists.declared
    ]


def describe_entries(components: Components, waitlists: Waitlists) -> None:
    """Say of the entries `WaitlistInput` and `WaitlistPatch` which waitlist's fields are which.

    Each becomes a `oneOf` with a branch per declaration; the names of the branches exclude each other. Raises
    `PluginError` as `fields_schema` does.
    """
    branches = list(_branches(components, waitlists))
    for name, new in (("WaitlistInput", True), ("WaitlistPatch", False)):
        components.schemas[name]["oneOf"] = [
            {**branch, "required": ["name", "fields"]} if new and must else dict(branch) for branch, must in branches
        ]


def _branches(components: Components, waitlists: Waitlists) -> Iterator[tuple[Schema, bool]]:
    """Give the branches, and whether a new entry of each must have fields."""
    before: list[Waitlist] = []
    for one in waitlists.declared:
        waitlist = one.value
        name = _component_name(waitlist.name, components.schemas)
        described = {"description": f"The fields of {_named(waitlist)}.", **fields_schema(one)}
        components.schema(name, _moved(described, f"#/components/schemas/{name}"))
        words = {"title": waitlist.title, "description": waitlist.description or waitlist.title}
        properties = {
            "name": _names(waitlist, before),
            "fields": {"$ref": f"#/components/schemas/{name}"},
        }
        yield {**words, "properties": properties}, not _takes_nothing(waitlist)
        before.append(waitlist)
    if not any(waitlist.beginning == "" for waitlist in before):
        words = {"title": "Any other waitlist", "description": "It may have any fields."}
        yield {**words, "properties": {"name": _others(before)}}, False


def _named(waitlist: Waitlist) -> str:
    if waitlist.beginning is None:
        return f"the waitlist `{waitlist.name}`"
    return f"waitlists whose names begin with `{waitlist.beginning}`" if waitlist.beginning else "any other waitlist"


def _takes_nothing(waitlist: Waitlist) -> bool:
    """Tell whether the waitlist's rules accept an entry without fields."""
    try:
        waitlist.load({})
    except ma.ValidationError:
        return False
    except Exception:  # noqa: BLE001  a fault of the rules is for the request that meets it
        return True
    return True


def _names(waitlist: Waitlist, before: Sequence[Waitlist]) -> Schema:
    """Describe the names that a declaration decides about: not those that one `before` it, more exact, does."""
    if waitlist.beginning is None:
        return {"const": waitlist.name}
    more_exact = [other for other in before if other.name.startswith(waitlist.beginning)]
    return {**_pattern(waitlist.beginning), **_others(more_exact)}


def _pattern(beginning: str) -> Schema:
    # `re.escape` escapes more, which JSON Schema's regular expressions do not let pass.
    return {"pattern": "^" + _SPECIAL.sub(r"\\\g<0>", beginning)} if beginning else {}


def _others(decided: Sequence[Waitlist]) -> Schema:
    exact = [waitlist.name for waitlist in decided if waitlist.beginning is None]
    some: list[Schema] = [{"enum": exact}] if exact else []
    some += [_pattern(waitlist.beginning) for waitlist in decided if waitlist.beginning]
    return {"not": some[0] if len(some) == 1 else {"anyOf": some}} if some else {}


def _component_name(waitlist: str, taken: Mapping[str, Any]) -> str:
    """Return a name, of the few characters that OpenAPI allows, that nothing has yet."""
    plain = _COMPONENT + re.sub(r"[^A-Za-z0-9._-]", "_", waitlist.replace("*", "any"))
    tries = (plain if number == 1 else f"{plain}_{number}" for number in range(1, len(taken) + 2))
    return next(name for name in tries if name not in taken)


def _moved(schema: Any, place: str) -> Any:
    """Return the schema with the references into itself leading to where it is in the document."""
    if isinstance(schema, Mapping):
        return {
            key: f"{place}{value[1:]}"
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(item, place) for item in schema] if isinstance(schema, list | tuple) else schema
