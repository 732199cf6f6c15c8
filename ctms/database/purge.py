"""Removal of a plugin's data: its schema with all tables, and its permissions, even if it is uninstalled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from psycopg import sql

from ctms.database.migrations import locked, revisions_of_plugins
from ctms.database.pool import Connection
from ctms.database.revisions import schema_of
from ctms.errors import ConflictError, NotFoundError

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname <> 'alembic_version' ORDER BY 1"""

_LOCKABLE = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') ORDER BY 1"""

_PERMISSIONS = """
    SELECT p.name, array_remove(array_agg(r.name ORDER BY r.name), NULL) FROM permissions p
    LEFT JOIN role_permissions g ON g.permission_id = p.id LEFT JOIN roles r ON r.id = g.role_id
    WHERE p.plugin = %s GROUP BY 1 ORDER BY 1"""

_OWNERS = "SELECT DISTINCT plugin FROM permissions WHERE plugin IS NOT NULL"

# Objects outside the schema that would be dropped with it. `lost` has all dropped objects, found as PostgreSQL finds
# them: those that depend on a dropped one, and those of which a dropped one is an inseparable part (i) or a member (e,
# an extension). Partitions depend automatically, so RESTRICT would not keep them. Objects outside are not followed any
# further. Internal triggers belong to a foreign key, TOAST tables to a table: these are found themselves.
_DEPENDENTS = """
    WITH RECURSIVE lost AS (
        SELECT 'pg_namespace'::regclass::oid AS class, oid AS object, 0 AS part, NULL::text AS elsewhere
        FROM pg_namespace WHERE nspname = %(schema)s
      UNION
        SELECT near.class, near.object, near.part, CASE
            WHEN place.schema NOT IN (%(schema)s, 'pg_toast') THEN named.type || ' ' || named.identity
            WHEN place.schema IS NULL AND named.type IN ('server', 'user mapping', 'event trigger')
            THEN named.type || ' ' || named.identity
        END
        FROM lost
        CROSS JOIN LATERAL (
            SELECT classid AS class, objid AS object, objsubid AS part FROM pg_depend
            WHERE refclassid = lost.class AND refobjid = lost.object
          UNION
            SELECT refclassid, refobjid, refobjsubid FROM pg_depend
            WHERE classid = lost.class AND objid = lost.object AND deptype IN ('i', 'e')
        ) near
        LEFT JOIN pg_attrdef d ON near.class = 'pg_attrdef'::regclass AND d.oid = near.object
        LEFT JOIN pg_policy p ON near.class = 'pg_policy'::regclass AND p.oid = near.object
        LEFT JOIN pg_rewrite r ON near.class = 'pg_rewrite'::regclass AND r.oid = near.object
        LEFT JOIN pg_trigger t ON near.class = 'pg_trigger'::regclass AND t.oid = near.object
        LEFT JOIN pg_constraint k ON near.class = 'pg_constraint'::regclass AND k.oid = near.object
        LEFT JOIN pg_class c ON c.oid IN (d.adrelid, p.polrelid, r.ev_class, t.tgrelid)
        CROSS JOIN LATERAL pg_identify_object(
            CASE WHEN r.oid IS NULL THEN near.class ELSE 'pg_class'::regclass END,
            CASE WHEN r.oid IS NULL THEN near.object ELSE r.ev_class END,
            near.part
        ) named
        CROSS JOIN LATERAL (
            SELECT coalesce(
                (SELECT nspname FROM pg_namespace WHERE oid = coalesce(c.relnamespace, k.connamespace)), named.schema
            ) AS schema
        ) place
        WHERE lost.elsewhere IS NULL AND t.tgisinternal IS NOT TRUE
    )
    SELECT DISTINCT elsewhere FROM lost WHERE elsewhere IS NOT NULL ORDER BY 1"""


@dataclass(frozen=True)
class Stored:
    """The data of a plugin: its tables, and the roles of each of its permissions."""

    plugin: str
    has_schema: bool
    tables: Sequence[str]
    permissions: dict[str, list[str]]


def stored_by(plugin: str) -> Stored:
    """Return the data of the plugin of that name. Raises as `purge`."""
    with _stored(plugin) as (_, found):
        return found


def purge(plugin: str, record: Callable[[Connection], object] = lambda _: None) -> Stored:
    """Remove all data of the plugin, in one transaction, in which `record` is called.

    Raises `NotFoundError` if it has none, and `ConflictError` if something outside the schema depends on it, and would
    be dropped.
    """
    with _stored(plugin, lock=True) as (connection, found):
        if found.has_schema:
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(schema_of(plugin))))
        connection.execute("DELETE FROM permissions WHERE plugin = %s", (plugin,))
        record(connection)
        return found


@contextmanager
def _stored(plugin: str, *, lock: bool = False) -> Iterator[tuple[Connection, Stored]]:
    schema = schema_of(plugin)
    with locked() as connection:
        known = revisions_of_plugins(connection)
        permissions = dict(connection.execute(_PERMISSIONS, (plugin,)).fetchall())
        if plugin not in known and not permissions:
            others = sorted({*known, *(owner for (owner,) in connection.execute(_OWNERS).fetchall())})
            raise NotFoundError(
                f"the plugin {plugin} has stored nothing; those that have are {', '.join(others) or 'none'}"
            )
        if lock:
            _lock_tables(connection, schema)
        others = [name for (name,) in connection.execute(_DEPENDENTS, {"schema": schema}).fetchall()]
        if plugin in known and others:
            raise ConflictError(f"{', '.join(others)}: depends on what the plugin {plugin} has stored, remove it first")
        tables = [f"{schema}.{name}" for (name,) in connection.execute(_TABLES, (schema,)).fetchall()]
        yield connection, Stored(plugin, plugin in known, tables if plugin in known else [], permissions)


def _lock_tables(connection: Connection, schema: str) -> None:
    """Prevent new objects that depend on the tables, until the end of the transaction."""
    connection.execute("SET LOCAL lock_timeout = '5s'")
    rows = connection.execute(_LOCKABLE, (schema,)).fetchall()
    if rows:
        names = sql.SQL(", ").join(sql.Identifier(schema, name) for (name,) in rows)
        connection.execute(sql.SQL("LOCK TABLE {}").format(names))
