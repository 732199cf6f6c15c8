"""Response bodies: JSON that the database renders, and errors, which only this module creates."""

from __future__ import annotations

import json
import logging
from typing import Any

import psycopg
from flask import Flask, Response
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException

from ctms.database.errors import describe, driver_error
from ctms.errors import ApiError, LoggedError, Unavailable

logger = logging.getLogger(__name__)


def json_response(text: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response with JSON text."""
    return Response(text, status, headers, content_type="application/json")


def error_response(status: int, detail: Any, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    """Return an error response: `{"detail": …}` and further members."""
    return json_response(json.dumps({"detail": detail, **extra}), status, headers)


def init_errors(app: Flask) -> None:
    """Register the handlers that turn every exception into an error response."""
    app.register_error_handler(ApiError, _expected)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(psycopg.Error, _database)
    app.register_error_handler(DBAPIError, _database_through_pool)
    app.register_error_handler(PoolTimeout, lambda _: _expected(Unavailable("no database connection is free")))
    app.register_error_handler(Exception, _unexpected)


def _expected(error: ApiError) -> Response:
    return error_response(error.status, error.detail, error.headers, **error.extra)


def _http(error: HTTPException) -> Response:
    if error.response is not None:
        return Response(status=error.response.status_code, headers=dict(error.response.headers))
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    return error_response(error.code or 500, error.name, headers)


def _database(error: psycopg.Error) -> Response:
    """Return 503 when a retry may help: the database is down, busy, or has cancelled a slow statement."""
    if isinstance(error, psycopg.OperationalError):
        logger.warning("database unavailable", extra={"sqlstate": error.sqlstate})
        return _expected(Unavailable("the database is not available"))
    return _unexpected(error)


def _database_through_pool(error: DBAPIError) -> Response:
    return _database(error.orig) if isinstance(error.orig, psycopg.Error) else _unexpected(error)


def _unexpected(error: Exception) -> Response:
    if not isinstance(error, LoggedError):
        cause = driver_error(error)
        found = () if cause is None else (describe(cause),)
        message = "unexpected error: %s" if found else "unexpected error"
        logger.error(message, *found, exc_info=error)
    return error_response(500, "Internal Server Error")
