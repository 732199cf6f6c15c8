"""The group `ctms`: it brings its own app, and what an operator has to put right is one line, not a traceback."""

from __future__ import annotations

import click
import psycopg
from flask.cli import AppGroup, ScriptInfo
from psycopg import errors
from sqlalchemy.exc import DBAPIError

from ctms.errors import OperatorError

_NO_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn)
_NOT_ALLOWED = (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)


class Group(AppGroup):
    """A group of commands that works in any folder."""

    def invoke(self, ctx: click.Context) -> object:
        """Run a command. The app is made from the environment when the command needs it, unless there is one.

        Raises `OperatorError` for settings that cannot be used and for a database that cannot be reached, does not
        answer in time or is not migrated.
        """
        from ctms.app import create_app  # noqa: PLC0415  not needed for --help

        info = ctx.ensure_object(ScriptInfo)
        if info.create_app is None:
            info.create_app = create_app
        try:
            return super().invoke(ctx)
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            problem = database_problem(cause)
            if problem is None:
                raise
            raise OperatorError(problem) from error


def database_problem(error: BaseException | None) -> str | None:
    """Say in one line what an operator has to know about an error of the database; None: it is a fault of ours."""
    if isinstance(error, _NO_SCHEMA):
        return (
            "the database does not have the tables of this version: run `flask db upgrade` first"
            " (`flask ctms serve` does it for the embedded one)"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, _NOT_ALLOWED):
        return f"the database does not allow it: {reason}"
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None or error.sqlstate.startswith(("08", "28", "3D", "57P")):
            return f"the database cannot be reached: {reason}"
        return f"the database did not do it, try again: {reason}"
    return None
