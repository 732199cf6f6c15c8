"""Validation errors in the form of responses: `{"loc", "msg", "type"}`, from marshmallow's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import marshmallow as ma

Problem = dict[str, Any]


def problem(loc: Sequence[str | int], message: str) -> Problem:
    """Return a validation error; the type is that of a `Message`, for other texts `value_error`."""
    return {"loc": list(loc), "msg": str(message), "type": getattr(message, "type", "value_error")}


def flatten(messages: Any, loc: Sequence[str | int] = ()) -> Iterator[Problem]:
    """Yield one error per message of marshmallow's nested messages, at the place `loc`."""
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from flatten(inner, loc if key == "_schema" else [*loc, key])
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield problem(loc, message)


class ProblemSchema(ma.Schema):
    """Validation error, as the OpenAPI document describes it in its component `Problem`."""

    loc = ma.fields.List(ma.fields.Raw())
    msg = ma.fields.String()
    type = ma.fields.String()
