"""Request parsing: invalid values become a 422 whose problems have the place, but never the value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, NoReturn

import marshmallow as ma
from flask import Request
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from ctms.contacts.fields import Message
from ctms.errors import Invalid

MAX_PROBLEMS = 100
"""Number of problems that a response names, so that it stays short."""

_PLACES = {"json": "body", "form": "body"}


class Parser(FlaskParser):
    """The parser of bodies, forms and queries for flask-smorest's `arguments`."""

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        """Return the parsed body. Raises `Invalid` if it is not JSON, or declares another type."""
        if req.mimetype and not req.is_json:
            raise Invalid([_problem(["body"], Message("Content-Type should be application/json", "content_type"))])
        body = req.get_data(cache=False)
        _require_whole(req, len(body))
        try:
            return json.loads(body, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise _not_json(error.pos) from None
        except UnicodeDecodeError as error:
            raise _not_json(error.start) from None
        except (ValueError, RecursionError):  # NaN, a number of 5,000 digits, 100,000 brackets
            raise _not_json(0) from None

    def load_querystring(self, req: Request, schema: ma.Schema) -> Any:
        """Return the query; blank means absent."""
        given = MultiDict((name, value) for name, value in req.args.items(multi=True) if value)
        return MultiDictProxy(given, schema)

    def load_form(self, req: Request, schema: ma.Schema) -> Any:
        """Return the form; blank means absent."""
        stream = req.stream  # before the form is parsed, which puts an empty one in its place
        form = req.form
        _require_whole(req, stream.tell())
        given = MultiDict((name, value) for name, value in form.items(multi=True) if value)
        return MultiDictProxy(given, schema)

    def handle_error(self, error: ma.ValidationError, *_: Any, **__: Any) -> NoReturn:
        """Raise `Invalid` with one problem per message."""
        raise Invalid(problems(error.messages)) from None


def _require_whole(req: Request, read: int) -> None:
    """Raise `RequestEntityTooLarge` if a chunked body was not read completely.

    The length of such a body is unknown in advance. Werkzeug reads it up to the limit without an error.
    """
    if req.content_length is None and read == req.max_content_length:
        raise RequestEntityTooLarge


def problems(messages: Any) -> list[dict[str, Any]]:
    """Flatten marshmallow's messages, keyed by place, into `{"loc", "msg", "type"}`: the first `MAX_PROBLEMS`."""
    found = chain.from_iterable(_flatten(inner, [_PLACES.get(place, place)]) for place, inner in messages.items())
    return list(islice(found, MAX_PROBLEMS))


def _flatten(messages: Any, loc: list[str | int]) -> Iterator[dict[str, Any]]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _flatten(inner, loc if key == "_schema" else [*loc, key])
    else:
        for message in messages if isinstance(messages, list) else [messages]:
            yield _problem(loc, message)


def _problem(loc: list[str | int], message: str) -> dict[str, Any]:
    return {"loc": loc, "msg": str(message), "type": getattr(message, "type", "value_error")}


def _not_json(position: int) -> Invalid:
    return Invalid([_problem(["body", position], Message("JSON decode error", "json_invalid"))])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
