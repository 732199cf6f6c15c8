"""Migrations: those of CTMS, then those of plugins, each plugin's in its own schema (decision 015).

A plugin's schema contains its tables and its version table, so that an uninstalled plugin is ignored, and can be
removed without its code. The version table of CTMS contains nothing of plugins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import alembic.command
import flask_migrate
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, load_python_file
from flask import Flask
from psycopg import sql

from ctms.current import extension
from ctms.database.engine import db, migrate
from ctms.database.pool import Connection
from ctms.database.revisions import SCHEMA_COMMENT, SCHEMA_PREFIX, Revisions, place_in, schema_of
from ctms.errors import OperatorError, PluginError
from ctms.hooks import checks
from ctms.hooks.plugin import Plugin, Registered
from ctms.hooks.registrations import Migrations, Permission
from ctms.paths import MIGRATIONS

LOCK = "SELECT pg_advisory_xact_lock(hashtext('ctms migrations'))"
"""Waits until no other process migrates, until the end of the transaction. `migrations/env.py` has the same lock."""

_MAX_NAME = 63 - len(SCHEMA_PREFIX)
_MAX_REVISION = 32

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

_chosen: ContextVar[PluginMigrations | None] = ContextVar("the plugin whose migrations Alembic works on", default=None)


class PluginMigrations:
    """The migrations of one enabled plugin."""

    def __init__(self, plugin: Plugin, folder: Path) -> None:
        """Read the files. Raises `PluginError` if the revisions are not linear."""
        self.plugin = plugin
        self.folder = folder
        if len(plugin.name) > _MAX_NAME:
            raise checks.problem(
                plugin, f"ctms_migrations needs a name of {_MAX_NAME} characters at most", "rename the entry point"
            )
        self.revisions = self._read()
        self.head = self.revisions[0]

    def is_installed_copy(self) -> bool:
        """Return whether pip copied the files here: the next installation removes files written next to them."""
        try:
            files = metadata.distribution(self.plugin.package).files or ()
        except metadata.PackageNotFoundError:
            return False
        return any(Path(str(file.locate())).parent.resolve() == self.folder.resolve() for file in files)

    def _read(self) -> Sequence[str]:
        """Return the ids of the revisions, newest first."""
        what = f"ctms_migrations yields the folder {self.folder}"
        try:
            self._check_ids(what)
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="Revision .* is not present")
                script = ScriptDirectory(str(MIGRATIONS), version_locations=[str(self.folder)])
                heads, bases = script.get_heads(), script.get_bases()
                found = [revision.revision for revision in script.walk_revisions()]
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            failed = f"{what}, whose revisions cannot be read ({checks.reason(error)})"
            raise checks.problem(self.plugin, failed, place=place_in(self.folder, error)) from error
        if not found:
            raise checks.problem(self.plugin, f"{what}, which has no revisions: are the files in the wheel?")
        if len(heads) > 1 or len(bases) > 1:
            several = heads if len(heads) > 1 else bases
            raise checks.problem(self.plugin, f"{what}, whose revisions are not one line: {', '.join(several)}")
        return found

    def _check_ids(self, what: str) -> None:
        """Raise `PluginError` for ids that Alembic reports without the file's name, or that the table cannot store."""
        files: dict[str, str] = {}
        for path in sorted(self.folder.glob("*.py")):
            if path.name.startswith((".#", "__init__")):  # Alembic ignores these
                continue
            module = load_python_file(str(self.folder), path.name)
            for name in ("revision", "down_revision", "depends_on"):
                value = getattr(module, name, None)
                ids = value if name != "revision" and isinstance(value, list | tuple) else (value,)
                if not all(isinstance(one, str) or (one is None and name != "revision") for one in ids):
                    missing = f"{what}, where {path.name} has no {name} that is text"
                    raise checks.problem(self.plugin, missing, "give it one in quotes")
            revision = module.revision
            if not revision.strip():
                raise checks.problem(self.plugin, f"{what}, where the revision of {path.name} is empty", "name it")
            if len(revision) > _MAX_REVISION:
                long = f"{what}, where the revision of {path.name} has more than {_MAX_REVISION} characters"
                raise checks.problem(self.plugin, long, "shorten it")
            if revision in files:
                same = f"{what}, where {files[revision]}, {path.name} have one revision, {revision}"
                raise checks.problem(self.plugin, same, "give each file a revision of its own")
            files[revision] = path.name


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
            current = revision_of(connection, one.plugin.name)
            if current == one.head:
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


@contextmanager
def chosen(plugin: PluginMigrations) -> Iterator[None]:
    """Let Alembic work on the migrations of a plugin in the block."""
    token = _chosen.set(plugin)
    try:
        yield
    finally:
        _chosen.reset(token)


@migrate.configure  # type: ignore[untyped-decorator]
def _configure(config: Config) -> Config:
    """Configure Alembic's migrations; `migrations/env.py` reads the attributes."""
    plugin = _chosen.get()
    if plugin is not None:
        for name in ("path_separator", "version_path_separator"):  # earlier versions use the second one
            config.set_main_option(name, "os")
        config.set_main_option("version_locations", str(plugin.folder).replace("%", "%%"))
    config.attributes["revisions"] = (
        Revisions(MIGRATIONS / "versions") if plugin is None else Revisions(plugin.folder, plugin.plugin)
    )
    return config


@cache
def head() -> str:
    """Return the newest migration's revision."""
    found = ScriptDirectory(str(MIGRATIONS)).get_current_head()
    assert found is not None  # noqa: S101  a test holds it
    return found


def is_known(revision: str) -> bool:
    """Return whether the revision is one of this version; a newer version's is not."""
    return any(script.revision == revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions())


def check_migrated() -> None:
    """Raise `OperatorError` unless our schema and those of plugins are at their newest revisions."""
    current = current_revision()
    if current != head():
        raise OperatorError(
            f"the database is at revision {current or 'none'}, not {head()}: run `flask db upgrade` first"
        )
    problem = problem_of_plugins()
    if problem is not None:
        raise OperatorError(problem)


def problem_of_plugins(name: str | None = None) -> str | None:
    """Return what the migrated database lacks for plugins, or for the one of that name, or None."""
    with rolled_back_connection() as connection:
        return next(plugin_schemas().problems(connection, name), None)


def upgrade() -> None:
    """Upgrade our schema and those of plugins to their newest revisions, and store the permissions of plugins."""
    flask_migrate.upgrade(directory=str(MIGRATIONS))
    upgrade_plugins()


def upgrade_plugins(names: Container[str] | None = None, report: Callable[[str], None] = lambda _: None) -> None:
    """Upgrade the schemas of plugins, or only of these, to their newest revisions. Raises `PluginError`.

    The permissions of all are stored. `report` is called with the result for each plugin.
    """
    wanted = plugin_schemas()
    for one in wanted.migrations.values():
        if names is not None and one.plugin.name not in names:
            continue
        with _explained(one) as before, chosen(one):
            alembic.command.upgrade(migrate.get_config(str(MIGRATIONS)), "head")
        report(f"plugin {one.plugin.name}: {upgraded(before, one.head)}")
    wanted.store_permissions()


def current_revision() -> str | None:
    """Return the revision of the tables of CTMS, or None if no migration has run."""
    with db.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def upgraded(before: str | None, after: str | None) -> str:
    """Return a short description of an upgrade."""
    return "nothing to do" if before == after else f"upgraded to {after}"


@contextmanager
def _explained(one: PluginMigrations) -> Iterator[str | None]:
    """Yield the revision of a plugin's schema; raise `PluginError` for any error of its migrations."""
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
    return _read_revision(connection, plugin) if plugin in _plugins_with_schema(connection) else None


def revisions_of_plugins(connection: Connection) -> dict[str, str | None]:
    """Return the revision of each plugin's schema in the database, by the plugins' names, installed or not."""
    return {plugin: _read_revision(connection, plugin) for plugin in _plugins_with_schema(connection)}


def _plugins_with_schema(connection: Connection) -> list[str]:
    names = {"prefix": SCHEMA_PREFIX, "comment": SCHEMA_COMMENT}
    return [plugin for (plugin,) in connection.execute(_PLUGINS, names).fetchall()]


def _read_revision(connection: Connection, plugin: str) -> str | None:
    table = sql.Identifier(schema_of(plugin), "alembic_version")
    (exists,) = _one(connection, "SELECT to_regclass(%s) IS NOT NULL", (table.as_string(),))
    found = connection.execute(sql.SQL("SELECT version_num FROM {}").format(table)).fetchone() if exists else None
    return None if found is None else str(found[0])


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
        driver.execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        driver.execute(LOCK)
        driver.execute("SET LOCAL lock_timeout TO DEFAULT")
        yield driver


def _one(connection: Connection, query: str, values: Sequence[Any]) -> tuple[Any, ...]:
    found = connection.execute(query, values).fetchone()
    assert found is not None  # noqa: S101  it has one row always
    return found
