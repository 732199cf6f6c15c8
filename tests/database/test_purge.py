"""A purge removes the data of a plugin, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from ctms.clients.roles import BUILT_IN_PERMISSIONS
from ctms.database.migrations import upgrade_plugins
from ctms.database.purge import purge, stored_by
from ctms.errors import ConflictError, NotFoundError
from ctms.settings import Settings
from tests import tables
from tests.plugin_databases import MakeApp, Stamps, query


def test_dependent_objects_outside_the_schema_prevent_a_purge(
    make_app: MakeApp, own_settings: Settings, tmp_path: Path
) -> None:
    app = make_app(Stamps(tmp_path, tables.REVISIONS, ("stamps:read",)))
    with app.app_context():
        upgrade_plugins()
        query(own_settings, "CREATE SCHEMA others")
        query(own_settings, "CREATE TABLE others.marks (stamp integer REFERENCES plugin_stamps.stamps)")
        query(own_settings, "CREATE VIEW others.seen AS SELECT text FROM plugin_stamps.stamps")
        with pytest.raises(ConflictError) as raised:
            purge("stamps")
        assert raised.value.message == (
            "table constraint marks_stamp_fkey on others.marks, view others.seen: depends on what the plugin stamps has"
            " stored, remove it first"
        )
        assert len(query(own_settings, "SELECT FROM pg_tables WHERE schemaname = 'plugin_stamps'")) == 2

        query(own_settings, "DROP SCHEMA others CASCADE")
        assert stored_by("stamps").tables == ["plugin_stamps.stamps"]
        purge("stamps")
        with pytest.raises(NotFoundError):
            purge("stamps")
    assert query(own_settings, "SELECT FROM pg_namespace WHERE nspname = 'plugin_stamps'") == []
    assert query(own_settings, "SELECT FROM permissions WHERE name = 'stamps:read'") == []
    assert len(query(own_settings, "SELECT FROM permissions")) == len(BUILT_IN_PERMISSIONS)


ELSEWHERE = {
    "table column others.t.c": "CREATE TABLE others.t (id integer, c plugin_stamps.mood)",
    "table others.t": "CREATE TABLE others.t OF plugin_stamps.pair",
    "view others.v": "CREATE VIEW others.v AS SELECT plugin_stamps.twice(1)",
    "materialized view others.v": "CREATE MATERIALIZED VIEW others.v AS SELECT text FROM plugin_stamps.stamps",
    "default value for others.t.id": (
        "CREATE TABLE others.t (id integer DEFAULT nextval('plugin_stamps.stamps_id_seq'))"
    ),
    "table others.child": "CREATE TABLE others.child () INHERITS (plugin_stamps.stamps)",
    "table others.part": "CREATE TABLE others.part PARTITION OF plugin_stamps.parted DEFAULT",
    "trigger marked on others.t": (
        "CREATE TABLE others.t (id integer); CREATE TRIGGER marked BEFORE INSERT ON others.t"
        " FOR EACH ROW EXECUTE FUNCTION plugin_stamps.mark()"
    ),
    "index others.i": "CREATE TABLE others.t (id integer); CREATE INDEX i ON others.t (plugin_stamps.twice(id))",
    "policy few on others.t": (
        "CREATE TABLE others.t (id integer); CREATE POLICY few ON others.t USING (plugin_stamps.twice(id) > 1)"
    ),
    "table constraint even on others.t": (
        "CREATE TABLE others.t (id integer CONSTRAINT even CHECK (plugin_stamps.twice(id) > 1))"
    ),
    "domain constraint even on others.d": (
        "CREATE DOMAIN others.d AS integer CONSTRAINT even CHECK (plugin_stamps.twice(VALUE) > 1)"
    ),
    "function others.f(plugin_stamps.mood)": (
        "CREATE FUNCTION others.f(plugin_stamps.mood) RETURNS text LANGUAGE sql AS 'SELECT $1::text'"
    ),
    "table column others.t.moods": "CREATE TABLE others.t (moods plugin_stamps.mood[])",
    "table column others.t.entry": "CREATE TABLE others.t (entry plugin_stamps.stamps)",
    "event trigger watched": (
        "CREATE EVENT TRIGGER watched ON ddl_command_start EXECUTE FUNCTION plugin_stamps.watch()"
    ),
}

OBJECTS = """
    CREATE TYPE mood AS ENUM ('glad');
    CREATE TYPE pair AS (a integer, b integer);
    CREATE FUNCTION twice(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS 'SELECT 2 * $1';
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE TABLE parted (id integer, body text) PARTITION BY LIST (id);
    CREATE TABLE parted_one PARTITION OF parted FOR VALUES IN (1);
    ALTER TABLE stamps ADD COLUMN mood mood, ADD COLUMN double integer DEFAULT twice(1), ADD CHECK (twice(id) > 0);
    CREATE TRIGGER marked BEFORE INSERT ON stamps FOR EACH ROW EXECUTE FUNCTION mark();
    CREATE POLICY few ON stamps USING (twice(id) > 1);
    CREATE INDEX doubles ON stamps (twice(id));
    CREATE MATERIALIZED VIEW texts AS SELECT text FROM stamps;
    CREATE DOMAIN even AS integer CHECK (twice(VALUE) > 1);
    CREATE FUNCTION of_mood(mood) RETURNS integer LANGUAGE sql AS 'SELECT 1';
    CREATE CAST (mood AS integer) WITH FUNCTION of_mood(mood);
    CREATE TABLE identities (id integer GENERATED ALWAYS AS IDENTITY UNIQUE, stamp integer REFERENCES stamps);
"""


@pytest.fixture
def with_objects(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> Iterator[Flask]:
    """An app whose plugin has objects of many kinds, which use each other."""
    third = tables.revision("0003", "0002", f'op.execute("""{OBJECTS}""")')
    app = make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_objects.py": third}))
    with app.app_context():
        upgrade_plugins()
    query(own_settings, "CREATE SCHEMA others")
    yield app
    query(own_settings, "DROP EVENT TRIGGER IF EXISTS watched")


@pytest.mark.parametrize("dependent", ELSEWHERE)
def test_a_purge_drops_nothing_outside_the_schema(dependent: str, with_objects: Flask, own_settings: Settings) -> None:
    query(own_settings, ELSEWHERE[dependent])

    with with_objects.app_context():
        for work in (stored_by, purge):
            with pytest.raises(ConflictError) as raised:
                work("stamps")
            assert dependent in raised.value.message.partition(": depends on what the plugin stamps has stored")[0]
            assert raised.value.exit_code == 10

        query(own_settings, "DROP SCHEMA others CASCADE")
        query(own_settings, "DROP EVENT TRIGGER IF EXISTS watched")
        purge("stamps")
    assert query(own_settings, "SELECT FROM pg_namespace WHERE nspname = 'plugin_stamps'") == []


def test_a_schema_of_somebody_else_is_not_purged(make_app: MakeApp, own_settings: Settings) -> None:
    query(own_settings, "CREATE SCHEMA plugin_stamps")
    for comment in ("NULL", "'Our own'", "'CTMS: tables of the plugin heir'"):
        query(own_settings, "CREATE TABLE plugin_stamps.alembic_version AS SELECT '0002' AS version_num")
        query(own_settings, f"COMMENT ON SCHEMA plugin_stamps IS {comment}")

        with make_app().app_context(), pytest.raises(NotFoundError):
            purge("stamps")

        query(own_settings, "DROP TABLE plugin_stamps.alembic_version")
