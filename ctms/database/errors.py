"""Errors of PostgreSQL in one line without values of rows."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

NO_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName)
"""The errors for a missing table, column or schema."""

NOT_ALLOWED = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)
"""The errors for what the database does not allow this user, or allow now."""

# The messages of these classes name tables, columns and constraints. Those of others, such as 22, quote values.
_WITHOUT_VALUES = ("23", "3F", "42")
_ADDRESS = re.compile(r'"[^"]*@[^"]*"')


def driver_error(error: BaseException | None) -> psycopg.Error | None:
    """Return psycopg's error, which SQLAlchemy may have wrapped, or None for any other exception."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return cause if isinstance(cause, psycopg.Error) else None


def database_error_in(error: BaseException) -> psycopg.Error | SQLAlchemyError | None:
    """Return the first error of the database among an exception and those that a traceback shows with it, if any."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, psycopg.Error | SQLAlchemyError):
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return found


def describe(error: psycopg.Error) -> str:
    """Return the class of an error, with PostgreSQL's message if it repeats no values, else with the SQLSTATE."""
    kind = type(error).__name__
    if error.sqlstate is None:
        # psycopg's own: this class is about the statement and its placeholders, others may quote what was passed.
        return f"{kind}: {' '.join(str(error).split())}" if type(error) is psycopg.ProgrammingError else kind
    # The message of a syntax error repeats the statement's text, including values formatted into it.
    primary = None if isinstance(error, errors.SyntaxError) else error.diag.message_primary
    if primary and error.sqlstate.startswith(_WITHOUT_VALUES) and not is_raised_by_function(error):
        return f"{kind}: " + _ADDRESS.sub('"…"', " ".join(primary.split()))
    return f"{kind} (SQLSTATE {error.sqlstate})"


def is_raised_by_function(error: psycopg.Error) -> bool:
    """Return whether a function raised it (`RAISE`), whose author wrote the message, with any SQLSTATE."""
    return (error.sqlstate or "").startswith("P0") or (error.diag.source_file or "").startswith(_LANGUAGES)


# The prefixes of file names in which procedural languages raise errors.
_LANGUAGES = ("pl_", "plpy", "plperl", "pltcl", "plv8")
