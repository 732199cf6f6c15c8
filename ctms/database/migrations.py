"""Migrations: those of CTMS, then those of plugins, each plugin's in its own schema (decision 015).

A plugin's schema contains its tables and its version table, so that an uninstalled plugin is ignored, and can be
removed without its code. The version table of CTMS contains nothing of plugins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, cast

from flask import Flask
from psycopg import sql

from ctms.current import extension
from ctms.database.compatibility import VERSION_TABLE, TableState, read_state
from ctms.database.engine import db
from ctms.database.plugin_migrations import PluginMigrations
from ctms.database.pool import Connection
from ctms.database.revisions import SCHEMA_COMMENT, SCHEMA_PREFIX, schema_of
from ctms.errors import OperatorError, PluginError
from ctms.hooks import checks
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Migrations, Permission
from ctms.paths import MIGRATIONS

TRY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('ctms migrations'))"
"""Locks out other processes that migrate, until the end of the transaction. `migrations/env.py` has the same lock.

Nobody waits inside a statement or transaction: CREATE INDEX CONCURRENTLY of the other process would wait for its end,
and the result of a statement keeps its snapshot until the next one.
"""
POLL_SECONDS = 0.2

NEWER_AND_COMPATIBLE = "the tables are those of a newer version, and compatible with this one"

_UPGRADE = "run `flask db upgrade`"

_STORE_PERMISSION = """
    INSERT INTO permissions AS stored (name, description, plugin) VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET description = EXCLUDED.description, plugin = EXCLUDED.plugin
    WHERE stored.plugin IS NULL
        OR (stored.plugin = EXCLUDED.plugin AND stored.description IS DISTINCT FROM EXCLUDED.description)"""

_OWNERS = "SELECT name, plugin FROM permissions WHERE name = ANY(%s)"

# A schema without the comment does not belong to CTMS.
_PLUGINS = """
    SELECT plugin FROM pg_namespace CROSS JOIN LATERAL substr(nspname, length(%(prefix)s) + 1) AS plugin
    WHERE nspname = %(prefix)s || plugin AND obj_description(oid, 'pg_namespace') = %(comment)s || plugin ORDER BY 1"""


class PluginSchemas:
    """The tables and permissions in the database that the enabled plugins require."""

    def __init__(
        self, migrations: Sequence[Registered[Migrations]], permissions: Sequence[Registered[Permission]]
    ) -> None:
        """Read the migrations. Raises `PluginError` for invalid ones."""
        self.migrations: dict[str, PluginMigrations] = {}
        self.permissions = permissions
        for one in migrations:
            if one.plugin.name in self.migrations:
                raise checks.problem(one.plugin, "ctms_migrations yields two folders", "put all revisions into one")
            self.migrations[one.plugin.name] = PluginMigrations(one.plugin, one.value.folder)

    def problems(self, connection: Connection, name: str | None = None) -> Iterator[str]:
        """Yield what a migrated database lacks for the plugins, or for the one of that name, and how to fix it.

        A running process does not know a version of a plugin that was installed since.
        """
        for one in self.migrations.values():
            if name not in (None, one.plugin.name):
                continue
            state = _state_of(connection, one.plugin.name)
            current = state.revision
            if current == one.head or state.is_compatible(one.head):
                continue
            if current is not None and current not in one.revisions:
                yield (
                    f"{one.plugin.title}: its tables are at the revision {current}, which this version does not have:"
                    f" restart the service, or install that version of {one.plugin.package}"
                )
            else:
                yield (
                    f"{one.plugin.title}: its tables are at the revision {current or 'none'}, not {one.head}:"
                    f" {_UPGRADE}"
                )
        owners = self._owners(connection)
        for permission in self.permissions:
            if name in (None, permission.plugin.name) and owners.get(permission.value.name) != permission.plugin.name:
                yield f"{permission.plugin.title}: its permission {permission.value.name} is not stored: {_UPGRADE}"

    def newer(self, connection: Connection) -> Iterator[str]:
        """Yield the plugins whose tables a newer version of the plugin has migrated, which this one works with."""
        for one in self.migrations.values():
            state = _state_of(connection, one.plugin.name)
            if state.is_compatible(one.head):
                yield (
                    f"{one.plugin.title}: its tables are at the revision {state.revision} of a newer version, and"
                    " compatible with this one"
                )

    def store_permissions(self) -> None:
        """Store the permissions; the plugin takes over those that an operator created.

        Raises `PluginError` if a permission belongs to a plugin that is not on.
        """
        if not self.permissions:
            return
        with locked() as connection:
            for one in self.permissions:
                values = (one.value.name, one.value.description, one.plugin.name)
                connection.execute(_STORE_PERMISSION, values)
            owners = self._owners(connection)
            for one in self.permissions:
                owner = owners[one.value.name]
                if owner != one.plugin.name:
                    raise PluginError(
                        f"{one.plugin.title}: ctms_permissions yields {one.value.name!r}, a permission that the plugin"
                        f" {owner} left: rename it, or run `flask ctms plugins purge {owner}`",
                        one.plugin.name,
                    )

    def _owners(self, connection: Connection) -> dict[str, str | None]:
        names = [one.value.name for one in self.permissions]
        return dict(connection.execute(_OWNERS, (names,)).fetchall()) if names else {}


def init_migrations(
    app: Flask, migrations: Sequence[Registered[Migrations]], permissions: Sequence[Registered[Permission]]
) -> None:
    """Store the requirements of the app's plugins in the app. Raises `PluginError`."""
    app.extensions["ctms.head"] = head
    app.extensions["ctms.plugin_schemas"] = PluginSchemas(migrations, permissions)


def plugin_schemas() -> PluginSchemas:
    """Return the database requirements of the current app's plugins."""
    return cast(PluginSchemas, extension("ctms.plugin_schemas"))


@cache
def head() -> str:
    """Return the newest migration's revision."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415  see `alembic_config`

    found = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert found is not None  # noqa: S101  a test holds it
    return found


@cache
def _known() -> Container[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415  see `alembic_config`

    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def is_known(revision: str) -> bool:
    """Return whether the revision is one of this version; a newer version's is not."""
    return revision in _known()


def check_migrated() -> Sequence[str]:
    """Raise `OperatorError` unless this version and its plugins work with the tables.

    These are at the newest revisions, or a newer version has migrated them, and this version is compatible: return
    warnings about the latter.
    """
    warnings = []
    newer = newer_tables()
    if newer is not None:
        _check_compatible(newer)
        warnings.append(
            f"the database is at revision {newer.revision} of a newer version, and compatible with this one"
        )
    elif (current := current_revision()) != head():
        raise OperatorError(
            f"the database is at revision {current or 'none'}, not {head()}: run `flask db upgrade` first"
        )
    with rolled_back_connection() as connection:
        problem = next(plugin_schemas().problems(connection), None)
        if problem is not None:
            raise OperatorError(problem)
        return [*warnings, *plugin_schemas().newer(connection)]


def problem_of_plugins(name: str | None = None) -> str | None:
    """Return what the migrated database lacks for plugins, or for the one of that name, or None."""
    with rolled_back_connection() as connection:
        return next(plugin_schemas().problems(connection, name), None)


def upgrade(report: Callable[[str], None] = lambda _: None, **options: Any) -> None:
    """Upgrade our schema and those of plugins to their newest revisions, and store the permissions of plugins.

    Tables that a newer version has migrated stay as they are, if this version works with them. `report` is called with
    the result for CTMS and each plugin; `options` are those of Flask-Migrate. Raises `OperatorError`.
    """
    newer = newer_tables()
    if newer is not None:
        _check_compatible(newer)
        report(f"CTMS: nothing to do: {NEWER_AND_COMPATIBLE}")
    else:
        from ctms.database.alembic_config import upgrade_own_tables  # noqa: PLC0415  it imports Alembic

        before = current_revision()
        upgrade_own_tables(**options)
        report(f"CTMS: {upgraded(before, current_revision())}")
    upgrade_plugins(report=report)


def upgrade_plugins(names: Container[str] | None = None, report: Callable[[str], None] = lambda _: None) -> None:
    """Upgrade the schemas of plugins, or only of these, to their newest revisions. Raises `PluginError`.

    The permissions of all are stored. `report` is called with the result for each plugin.
    """
    wanted = plugin_schemas()
    for one in wanted.migrations.values():
        if names is not None and one.plugin.name not in names:
            continue
        with rolled_back_connection() as connection:
            state = _state_of(connection, one.plugin.name)
        if state.is_compatible(one.head):
            report(f"plugin {one.plugin.name}: nothing to do: {NEWER_AND_COMPATIBLE}")
            continue
        from ctms.database.alembic_config import upgrade_tables_of  # noqa: PLC0415  it imports Alembic

        with _explained(one) as before:
            upgrade_tables_of(one)
        report(f"plugin {one.plugin.name}: {upgraded(before, one.head)}")
    wanted.store_permissions()


def current_revision() -> str | None:
    """Return the revision of the tables of CTMS, or None if no migration has run."""
    return read_own_state().revision


def read_own_state() -> TableState:
    """Return the state of the tables of CTMS."""
    with rolled_back_connection() as connection:
        return read_state(connection) if _exists(connection, sql.Identifier(VERSION_TABLE)) else TableState()


def newer_tables() -> TableState | None:
    """Return the state of the tables of CTMS if a newer version has migrated them."""
    state = read_own_state()
    return None if state.revision is None or is_known(state.revision) else state


def _check_compatible(newer: TableState) -> None:
    if not newer.is_compatible(head()):
        raise OperatorError(
            f"the database is at revision {newer.revision} of a newer version, with which this version does not work:"
            f" start the newer version, or run `flask db downgrade {head()}` with it"
        )


def upgraded(before: str | None, after: str | None) -> str:
    """Return a short description of an upgrade."""
    return "nothing to do" if before == after else f"upgraded to {after}"


@contextmanager
def _explained(one: PluginMigrations) -> Iterator[str | None]:
    """Yield the revision of a plugin's schema; raise `PluginError` for any error of its migrations."""
    from alembic.util import CommandError  # noqa: PLC0415  see `alembic_config`

    with rolled_back_connection() as connection:
        current = revision_of(connection, one.plugin.name)
    if current is not None and current not in one.revisions:
        raise checks.problem(
            one.plugin,
            f"its tables are at the revision {current}, which this version does not have",
            f"install a newer version of {one.plugin.package}, or set CTMS_PLUGINS_DISABLED={one.plugin.name}",
        )
    try:
        yield current
    except PluginError:
        raise
    except OperatorError as error:
        raise checks.problem(one.plugin, f"its migrations stopped, {error.message}", "run it again") from error
    except (Exception, SystemExit) as error:
        what = checks.reason(error) if isinstance(error, CommandError) else type(error).__name__
        raise checks.problem(one.plugin, f"its migrations failed with {what}") from error


def revision_of(connection: Connection, plugin: str) -> str | None:
    """Return the revision of the plugin's schema, or None if no migration has run."""
    return _state_of(connection, plugin).revision


def revisions_of_plugins(connection: Connection) -> dict[str, str | None]:
    """Return the revision of each plugin's schema in the database, by the plugins' names, installed or not."""
    return {plugin: _state_of(connection, plugin).revision for plugin in _plugins_with_schema(connection)}


def _state_of(connection: Connection, plugin: str) -> TableState:
    schema = schema_of(plugin)
    if plugin not in _plugins_with_schema(connection) or not _exists(connection, sql.Identifier(schema, VERSION_TABLE)):
        return TableState()
    return read_state(connection, schema)


def _plugins_with_schema(connection: Connection) -> list[str]:
    names = {"prefix": SCHEMA_PREFIX, "comment": SCHEMA_COMMENT}
    return [plugin for (plugin,) in connection.execute(_PLUGINS, names).fetchall()]


def _exists(connection: Connection, table: sql.Identifier) -> bool:
    (found,) = _one(connection, "SELECT to_regclass(%s) IS NOT NULL", (table.as_string(connection),))
    return bool(found)


@contextmanager
def rolled_back_connection() -> Iterator[Connection]:
    """Acquire a connection of the engine in a transaction that is rolled back."""
    with db.engine.connect() as connection:
        yield cast(Connection, connection.connection.driver_connection)


@contextmanager
def locked() -> Iterator[Connection]:
    """Acquire a connection for one transaction, while no other process migrates."""
    with db.engine.begin() as connection:
        driver = cast(Connection, connection.connection.driver_connection)
        while not _one(driver, TRY_LOCK, ())[0]:
            driver.rollback()
            time.sleep(POLL_SECONDS)
        driver.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        yield driver


def _one(connection: Connection, query: str, values: Sequence[Any]) -> tuple[Any, ...]:
    found = connection.execute(query, values).fetchone()
    assert found is not None  # noqa: S101  it has one row always
    return found
