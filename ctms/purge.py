"""Removal of what a plugin has stored: its schema with all tables, and its permissions, also when it is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from ctms.errors import ConflictError, NotFoundError
from ctms.migrations import locked, revisions_of_plugins, schema_of
from ctms.pool import Connection

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> 'alembic_version' ORDER BY 1"""

_PERMISSIONS = """
    SELECT p.name, array_remove(array_agg(r.name ORDER BY r.name), NULL) FROM permissions p
    LEFT JOIN role_permissions g ON g.permission_id = p.id LEFT JOIN roles r ON r.id = g.role_id
    WHERE p.plugin = %s GROUP BY 1 ORDER BY 1"""

_OWNERS = "SELECT DISTINCT plugin FROM permissions WHERE plugin IS NOT NULL"

# What lies elsewhere and would be dropped, or lose a constraint, together with the schema.
_DEPENDENTS = """
    SELECT DISTINCT n.nspname || '.' || c.relname
    FROM pg_class own JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = own.oid
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    LEFT JOIN pg_constraint k ON d.classid = 'pg_constraint'::regclass AND k.oid = d.objid
    JOIN pg_class c ON c.oid IN (r.ev_class, k.conrelid)
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE own.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s) AND n.nspname <> %(schema)s
    ORDER BY 1"""


@dataclass(frozen=True)
class Stored:
    """What a plugin has stored: its tables, and for each of its permissions the roles that have it."""

    plugin: str
    has_schema: bool
    tables: Sequence[str]
    permissions: dict[str, list[str]]


def stored_by(plugin: str) -> Stored:
    """Return what the plugin of that name has stored. Raises as `purge`."""
    with _stored(plugin) as (_, found):
        return found


def purge(plugin: str) -> Stored:
    """Remove all that the plugin has stored, in one transaction.

    Raises `NotFoundError` where it has stored nothing, and `ConflictError` where tables or views of others depend on
    its tables.
    """
    with _stored(plugin) as (connection, found):
        connection.execute("SET LOCAL lock_timeout = '5s'")
        if found.has_schema:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema_of(plugin))))
        connection.execute("DELETE FROM permissions WHERE plugin = %s", (plugin,))
        return found


@contextmanager
def _stored(plugin: str) -> Iterator[tuple[Connection, Stored]]:
    schema = schema_of(plugin)
    with locked() as connection:
        known = revisions_of_plugins(connection)
        permissions = dict(connection.execute(_PERMISSIONS, (plugin,)).fetchall())
        if plugin not in known and not permissions:
            others = sorted({*known, *(owner for (owner,) in connection.execute(_OWNERS).fetchall())})
            raise NotFoundError(
                f"the plugin {plugin} has stored nothing; those that have are {', '.join(others) or 'none'}"
            )
        others = [name for (name,) in connection.execute(_DEPENDENTS, {"schema": schema}).fetchall()]
        if others:
            raise ConflictError(f"{', '.join(others)} depend on tables of the plugin {plugin}: remove them first")
        tables = [f"{schema}.{name}" for (name,) in connection.execute(_TABLES, (schema,)).fetchall()]
        yield connection, Stored(plugin, plugin in known, tables if plugin in known else [], permissions)
