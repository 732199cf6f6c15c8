"""A faster way to load data, with marshmallow's fields and hooks, and with its results and errors.

marshmallow prepares each field to collect its errors, and visits the fields that are not given. Most data is valid and
sparse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import marshmallow as ma

LOADED_BY_MARSHMALLOW = object()
"""The result for data that only marshmallow loads. Nothing was called then: rules of plugins run once."""

_REQUIRED = object()


class _Field(NamedTuple):
    """A field: its key in the data, its attribute in the result, its method, its default."""

    key: str
    attribute: str
    deserialize: Callable[..., Any]
    default: Any


class Loader:
    """The loader of a schema, for objects that are loaded without other options than the schema's own."""

    def __init__(self, schema: ma.Schema) -> None:
        hooks = type(schema).resolve_hooks()
        after = hooks.pop("post_load", [])
        others = [name for name in ("pre_load", "validates", "validates_schema") if hooks.get(name)]
        partial = schema.partial
        self._is_usable = (
            not others
            and not schema.many
            and not any(with_collection or options.get("pass_original") for _, with_collection, options in after)
        )
        self._hooks: list[Callable[..., Any]] = [getattr(schema, name) for name, _, _ in after]
        self._options = {"many": False, "partial": partial, "unknown": schema.unknown}
        self._ignores_unknown = schema.unknown == ma.EXCLUDE
        self._keys: set[str] = set()
        self._of_marshmallow: set[str] = set()
        self._fields: list[_Field] = []
        for name, field in schema.load_fields.items():
            key, attribute = field.data_key or name, field.attribute or name
            self._keys.add(key)
            # marshmallow passes `partial` on to what is nested.
            is_nested = isinstance(field, ma.fields.Nested | ma.fields.List)
            if "." in attribute or (is_nested and partial):
                self._of_marshmallow.add(key)
            is_optional = partial is True or (partial and name in partial)
            default = ma.missing if is_optional else _REQUIRED if field.required else field.load_default
            self._fields.append(_Field(key, attribute, field.deserialize, default))

    def load(self, data: Any) -> Any:
        """Return the loaded data, or `LOADED_BY_MARSHMALLOW`. Raises `marshmallow.ValidationError`."""
        if (
            not self._is_usable
            or type(data) is not dict
            or not self._of_marshmallow.isdisjoint(data)
            or not (self._ignores_unknown or data.keys() <= self._keys)
        ):
            return LOADED_BY_MARSHMALLOW
        result: Any = {}
        errors: dict[str, Any] = {}
        # In the order of the schema, as marshmallow does: the writers have a statement for each order of columns.
        for key, attribute, deserialize, default in self._fields:
            if key in data or default is _REQUIRED:
                try:
                    result[attribute] = deserialize(data.get(key, ma.missing), key, data)
                except ma.ValidationError as error:
                    errors[key] = error.messages
            elif default is not ma.missing:
                result[attribute] = default() if callable(default) else default
        if not errors:
            try:
                for hook in self._hooks:
                    result = hook(result, **self._options)
            except ma.ValidationError as error:
                errors = error.normalized_messages()  # type: ignore[no-untyped-call]
        if errors:
            raise ma.ValidationError(errors, data=data, valid_data=result)
        return result
