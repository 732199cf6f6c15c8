"""The compatibility of tables with older versions, so that these start on tables that a newer version has migrated.

A revision declares in `oldest_compatible` which code works with its tables: the code that worked before, from a named
revision on, or without a declaration only its own. Each migration stores the compatible revisions in the comment of
Alembic's version table, where an older version, which does not have the newer revision's file, reads them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from ctms.database.pool import Connection

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

VERSION_TABLE = "alembic_version"
ATTRIBUTE = "oldest_compatible"
UNCHANGED = "unchanged"
"""The declaration of a revision that only adds: the code that worked with the tables before still does."""

_PREFIX = "CTMS: "

_STATE = sql.SQL("SELECT version_num, obj_description(%s::regclass, 'pg_class') FROM {}")


@dataclass(frozen=True)
class TableState:
    """The revision of the tables of CTMS or a plugin, and the revisions whose code works with them."""

    revision: str | None = None
    compatible: frozenset[str] = frozenset()

    def is_compatible(self, head: str) -> bool:
        """Return whether the version whose newest revision is `head` works with these tables of a newer version."""
        return self.revision != head and head in self.compatible


def read_state(connection: Connection, schema: str | None = None) -> TableState:
    """Return the state of the tables of CTMS, or of those in a plugin's schema; its version table must exist."""
    table = sql.Identifier(VERSION_TABLE) if schema is None else sql.Identifier(schema, VERSION_TABLE)
    found = connection.execute(_STATE.format(table), (table.as_string(connection),)).fetchone()
    if found is None:
        return TableState()
    revision, comment = found
    return TableState(str(revision), _read_comment(str(revision), comment))


def comment_statement(scripts: ScriptDirectory, revision: str, schema: str | None) -> str:
    """Return the statement that stores which revisions are compatible with the tables at `revision`."""
    table = f'"{schema}".{VERSION_TABLE}' if schema is not None else VERSION_TABLE
    content = {"revision": revision, "compatible": compatible_revisions(scripts, revision)}
    text = f"{_PREFIX}{json.dumps(content)}".replace("'", "''")
    return f"COMMENT ON TABLE {table} IS '{text}'"


def compatible_revisions(scripts: ScriptDirectory, revision: str) -> list[str]:
    """Return the revisions, newest first, whose code works with the tables at `revision`.

    Raises `ValueError` if one of them names no earlier revision as the oldest compatible one.
    """
    line = list(scripts.iterate_revisions(revision, "base"))
    ids = [script.revision for script in line]
    oldest = len(line) - 1
    for position, script in enumerate(line):
        declared = _declared(script)
        if declared == UNCHANGED:
            continue
        if declared not in ids[position:]:
            raise ValueError(f"{script.path} has the {ATTRIBUTE} {declared!r}, which is no earlier revision")
        oldest = min(oldest, ids.index(declared))
    return ids[: oldest + 1]


def _declared(script: Script) -> Any:
    declared = getattr(script.module, ATTRIBUTE, None)
    return script.revision if declared is None else declared


def _read_comment(revision: str, comment: str | None) -> frozenset[str]:
    """Return the compatible revisions; none if the comment is missing or about another revision."""
    if comment is None or not comment.startswith(_PREFIX):
        return frozenset()
    try:
        content = json.loads(comment.removeprefix(_PREFIX))
        return frozenset(content["compatible"]) if content["revision"] == revision else frozenset()
    except (ValueError, TypeError, KeyError):
        return frozenset()
