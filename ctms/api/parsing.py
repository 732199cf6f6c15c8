"""Request parsing: invalid values become a 422 whose problems have the place, but never the value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from itertools import chain, islice
from typing import Any, NoReturn

import marshmallow as ma
from flask import Request, Response
from webargs.flaskparser import FlaskParser
from webargs.multidictproxy import MultiDictProxy
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import RequestEntityTooLarge

from ctms.contacts.fields import Message
from ctms.contacts.problems import flatten, problem
from ctms.current import current_request
from ctms.errors import Invalid

View = Callable[..., Response]

MAX_PROBLEMS = 100
"""Number of problems that a response names, so that it stays short."""

_PLACES = {"json": "body", "form": "body"}


class Parser(FlaskParser):
    """The parser of bodies, forms and queries for flask-smorest's `arguments`."""

    def load_json(self, req: Request, schema: ma.Schema) -> Any:
        """Return the parsed body. Raises `Invalid` if it is not JSON, or declares another type."""
        if req.mimetype and not req.is_json:
            raise Invalid([problem(["body"], Message("Content-Type should be application/json", "content_type"))])
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
        return _without_blanks(req.args, schema)

    def load_form(self, req: Request, schema: ma.Schema) -> Any:
        """Return the form; blank means absent."""
        stream = req.stream  # before the form is parsed, which puts an empty one in its place
        form = req.form
        _require_whole(req, stream.tell())
        return _without_blanks(form, schema)

    def handle_error(self, error: ma.ValidationError, *_: Any, **__: Any) -> NoReturn:
        """Raise `Invalid` with one problem per message."""
        raise Invalid(problems(error.messages)) from None


def body_limit(size: int) -> Callable[[View], View]:
    """Return a decorator of a view that may receive larger bodies than others, up to `size` bytes.

    It is for guarded views: the guard checks the token first.
    """

    def decorate(view: View) -> View:
        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Response:
            current_request().max_content_length = size
            return view(*args, **kwargs)

        return limited

    return decorate


def _without_blanks(given: MultiDict[str, str], schema: ma.Schema) -> dict[str, Any]:
    """Return the values that are not blank: a list for a field that takes several, otherwise the first.

    In a MultiDict each name that is absent costs an exception, and most fields of a query are absent.
    """
    filled = MultiDictProxy(MultiDict((name, value) for name, value in given.items(multi=True) if value), schema)
    return {name: filled[name] for name in filled}


def _require_whole(req: Request, read: int) -> None:
    """Raise `RequestEntityTooLarge` if a chunked body was not read completely.

    The length of such a body is unknown in advance. Werkzeug reads it up to the limit without an error.
    """
    if req.content_length is None and read == req.max_content_length:
        raise RequestEntityTooLarge


def problems(messages: Any) -> list[dict[str, Any]]:
    """Flatten marshmallow's messages, keyed by place, into `{"loc", "msg", "type"}`: the first `MAX_PROBLEMS`."""
    found = chain.from_iterable(flatten(inner, [_PLACES.get(place, place)]) for place, inner in messages.items())
    return list(islice(found, MAX_PROBLEMS))


@contextmanager
def rules_as_problems() -> Iterator[None]:
    """Raise `Invalid` when a writer finds that the body breaks a rule about what is stored."""
    try:
        yield
    except ma.ValidationError as error:
        raise Invalid(problems({"json": error.messages})) from error


def _not_json(position: int) -> Invalid:
    return Invalid([problem(["body", position], Message("JSON decode error", "json_invalid"))])


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
