"""Database errors that an operator can fix, in one line each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from flask import has_app_context
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from ctms.current import extension
from ctms.database.engine import db, quick_connection
from ctms.database.errors import NO_SCHEMA, NOT_ALLOWED, describe, driver_error, is_raised_by_function
from ctms.database.storage import NO_SPACE, errno_in
from ctms.errors import OperatorError


def database_problem(error: BaseException | None) -> str | None:
    """Return a one-line message for an operator about a database error, or None if it is a bug."""
    if isinstance(error, NO_SCHEMA):
        if is_migrated():
            return f"{describe(error)}, although the database is at the newest revision: see `flask db check`"
        return (
            "the database does not have the tables of this version: run `flask db upgrade` first"
            " (`flask ctms serve` does it for the embedded one)"
        )
    message = "" if isinstance(error, psycopg.Error) and is_raised_by_function(error) else str(error).strip()
    reason = (message.splitlines() or [type(error).__name__])[0]
    if isinstance(error, NOT_ALLOWED):
        return f"the database does not allow it: {reason}"
    if isinstance(error, errors.DependentObjectsStillExist):
        return f"{reason}: if it is a table of a plugin (`flask db current`), run `flask ctms plugins purge` first"
    return _operational_problem(error, reason) if isinstance(error, psycopg.OperationalError) else None


def _operational_problem(error: psycopg.OperationalError, reason: str) -> str:
    if isinstance(error, errors.DiskFull) or errno_in(reason) in NO_SPACE:
        return f"the database server has no space left: free some on its disk, and try again ({reason})"
    if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "3D", "57P")):
        return f"the database cannot be reached: {reason}{_hint(error)}"
    return f"the database did not do it, try again: {reason}"


def _hint(error: psycopg.OperationalError) -> str:
    # The error of a failed connection has no SQLSTATE; libpq knows whether the server asked for the password.
    if error.pgconn is None or not error.pgconn.used_password:
        return ""
    return " (special characters of the password in CTMS_DB_URL are percent-encoded: @ as %40, % as %25)"


def is_migrated() -> bool:
    """Return whether the current app's database is at the newest revision; False if it cannot be read."""
    if not has_app_context():
        return False
    try:
        with quick_connection() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error:
        return False
    return row is not None and row[0] == extension("ctms.head")()


@contextmanager
def operator_errors() -> Iterator[None]:
    """Raise `OperatorError` in place of a database error that an operator can fix."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        problem = database_problem(driver_error(error))
        if problem is None:
            raise
        raise OperatorError(problem) from error


def check_reachable() -> None:
    """Connect once. Raises `OperatorError`, one line without the URL's password."""
    with operator_errors(), db.engine.connect():
        pass
