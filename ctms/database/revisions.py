"""Running the revisions of one folder: each in a defined session, with one-line errors.

`migrations/env.py`, which all commands of Alembic use, finds a `Revisions` in the configuration.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import StatementError

from ctms.database.compatibility import comment_statement
from ctms.database.errors import NOT_ALLOWED, describe
from ctms.database.operator_errors import database_problem
from ctms.errors import OperatorError
from ctms.hooks import checks
from ctms.hooks.plugin import Plugin

if TYPE_CHECKING:
    from alembic.migration import MigrationContext
    from alembic.script import Script, ScriptDirectory

SCHEMA_PREFIX = "plugin_"
"""The prefix of the schemas of plugins."""

SCHEMA_COMMENT = "CTMS: tables of the plugin "
"""The prefix of the comment on a plugin's schema. A schema without it does not belong to CTMS."""

_REPORT = "nothing of this migration is stored; report it"

# The statements of a plugin's migrations are the plugin's: a missing table is not the operator's fault.
_STATEMENT_FAULTS = (psycopg.ProgrammingError, psycopg.InternalError)

_SCHEMA = text("""
    SELECT obj_description(oid, 'pg_namespace') AS comment, NOT EXISTS (
        SELECT FROM pg_depend WHERE refclassid = 'pg_namespace'::regclass AND refobjid = n.oid
    ) AS is_empty
    FROM pg_namespace n WHERE nspname = :schema""")


class Revisions:
    """The revisions in a folder: a plugin's, or those of CTMS."""

    def __init__(self, folder: Path, plugin: Plugin | None = None) -> None:
        self.folder = folder
        self.plugin = plugin
        self.schema = None if plugin is None else schema_of(plugin.name)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raise `OperatorError`, one line without values of rows, for exceptions of the revisions or the database.

        Alembic's refusals, and bugs elsewhere, are raised unchanged.
        """
        try:
            yield
        except (OperatorError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            raised = error.orig if isinstance(error, StatementError) and error.orig is not None else error
            place = place_in(self.folder, error)
            if place is None and not isinstance(raised, psycopg.Error):
                raise
            raise self._explanation(raised, place) from error

    def _explanation(self, error: BaseException, place: str | None) -> OperatorError:
        problem = database_problem(error)
        if self.plugin is None:
            where = place or "no file of a revision"
            return OperatorError(problem or f"a migration failed with {reason(error)}, in {where}: {_REPORT}")
        if problem is not None and (isinstance(error, NOT_ALLOWED) or not isinstance(error, _STATEMENT_FAULTS)):
            return checks.problem(self.plugin, f"its migrations stopped, {problem}", "run it again", place)
        return checks.problem(self.plugin, f"its migrations failed with {reason(error)}", place=place)

    def schema_statements(self) -> Sequence[str]:
        """Return the statements that create and mark the plugin's schema; none for CTMS."""
        if self.plugin is None:
            return ()
        comment = f"{SCHEMA_COMMENT}{self.plugin.name}"
        return f'CREATE SCHEMA "{self.schema}"', f"COMMENT ON SCHEMA \"{self.schema}\" IS '{comment}'"

    def enter_schema(self, connection: Connection, *, create: bool) -> None:
        """Create and mark the plugin's schema if it is missing, in the transaction of the first revision.

        An empty schema is used: somebody created it for a role without the privilege. Raises `PluginError` for one that
        contains anything and is not marked.
        """
        if self.plugin is None:
            return
        found = connection.execute(_SCHEMA, {"schema": self.schema}).first()
        if found is not None and found.comment == f"{SCHEMA_COMMENT}{self.plugin.name}":
            return
        creating, marking = self.schema_statements()
        if found is not None and not found.is_empty:
            what = f"the schema {self.schema} is in use, and CTMS has not created it"
            raise checks.problem(self.plugin, what, f"rename it; if it is the plugin's, run {marking}")
        if create:
            # Not `IF NOT EXISTS`, which requires the privilege to create schemas even if the schema exists.
            for statement in (creating, marking) if found is None else (marking,):
                connection.execute(text(statement))

    def store_compatibility(
        self, scripts: ScriptDirectory, *, ctx: MigrationContext, heads: Set[str], **_others: Any
    ) -> None:
        """Store which older versions work with the tables: a callback for Alembic's `on_version_apply`.

        Alembic calls it for each revision and each `stamp`, in the transaction that changes the version table.
        """
        for revision in heads:  # one, or none after the first revision was downgraded
            ctx.execute(text(comment_statement(scripts, revision, self.schema)))

    def prepare(
        self, scripts: ScriptDirectory, before: Callable[[], None], connection: Connection | None = None
    ) -> None:
        """Call `before` before each revision, and refuse one that closes the connection."""
        for script in scripts.walk_revisions():
            for name in ("upgrade", "downgrade"):
                work = getattr(script.module, name, None)
                if work is not None:
                    setattr(script.module, name, self._prepared(script, work, before, connection))

    def _prepared(
        self, script: Script, work: Callable[..., Any], before: Callable[[], None], connection: Connection | None
    ) -> Callable[..., None]:
        @wraps(work)
        def run(**arguments: Any) -> None:
            before()
            work(**arguments)
            if connection is None or not _is_lost(connection):
                return
            if not connection.closed:
                connection.invalidate()  # so that the failing rollback does not hide the error
            if self.plugin is None:
                raise OperatorError(f"a migration closed the connection that it was given, in {script.path}: {_REPORT}")
            what = "one of its migrations closed the connection that it was given"
            raise checks.problem(self.plugin, what, place=script.path)

        return run


def schema_of(plugin: str) -> str:
    """Return the name of a plugin's schema."""
    return f"{SCHEMA_PREFIX}{plugin}"


def place_in(folder: Path, error: BaseException) -> str | None:
    """Return the file in the folder, and the line, where an exception was raised, or None if it was elsewhere."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    steps = [step for step in traceback.extract_tb(error.__traceback__) if Path(step.filename).parent == folder]
    return f"{steps[-1].filename}, line {steps[-1].lineno}" if steps else None


def reason(error: BaseException) -> str:
    """Return the type of an exception, with its message only if that repeats no values of rows."""
    return describe(error) if isinstance(error, psycopg.Error) else type(error).__name__


def _is_lost(connection: Connection) -> bool:
    if connection.closed or connection.invalidated:
        return True
    driver = connection.connection.driver_connection
    return driver is None or bool(driver.closed)
