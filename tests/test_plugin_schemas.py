"""What the migrations and permissions of plugins do to the database, and what they are refused for; in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy.engine import make_url

from ctms.app import create_app
from ctms.database import release_database
from ctms.errors import ConflictError, NotFoundError, OperatorError, PluginError
from ctms.migrations import check_migrated, upgrade, upgrade_plugins
from ctms.plugins import Migrations, Permission, hookimpl
from ctms.pool import libpq_url
from ctms.purge import purge, stored_by
from ctms.settings import Settings
from ctms.telemetry.health import run_health_checks
from ctms.testing.plugins import points_of
from tests import tables
from tests.conftest import empty_database

MakeApp = Callable[..., Flask]


class Stamps:
    """A plugin with these revisions and permissions."""

    def __init__(self, folder: Path, revisions: dict[str, str], permissions: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._permissions = permissions
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in revisions.items():
            (folder / file).write_text(text)

    @hookimpl
    def ctms_migrations(self) -> Iterator[Migrations]:
        yield Migrations(folder=self._folder)

    @hookimpl
    def ctms_permissions(self) -> Iterator[Permission]:
        for name in self._permissions:
            yield Permission(name=name, description="Anything")


class Heir(Stamps):
    """Another plugin."""


@pytest.fixture(scope="module")
def own_settings(postgres: str, worker_id: str, settings: Settings) -> Settings:
    """The settings with a database that is migrated, and has nothing of plugins."""
    found = replace(settings, db_url=empty_database(postgres, f"plugin_schemas_{worker_id}"))
    app = create_app(found, [])
    with app.app_context():
        upgrade()
    release_database(app)
    return found


@pytest.fixture
def make_app(own_settings: Settings) -> Iterator[MakeApp]:
    """Makes apps with plugins on that database."""
    made = []

    def make(*plugins: object, db_url: str | None = None) -> Flask:
        app = create_app(replace(own_settings, db_url=db_url or own_settings.db_url), points_of(plugins))
        made.append(app)
        return app

    yield make
    for app in made:
        release_database(app)
    for schema in ("plugin_stamps", "plugin_heir", "others"):
        query(own_settings, f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    query(own_settings, "DELETE FROM permissions WHERE name ~ ':'")


def query(settings: Settings, sql: str) -> list[Any]:
    with psycopg.connect(libpq_url(str(settings.db_url)), autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description is not None else []


def refused(app: Flask) -> str:
    """Return why the migrations of plugins stop."""
    with app.app_context(), pytest.raises(PluginError) as raised:
        upgrade_plugins()
    assert raised.value.plugins == ("stamps",)
    return raised.value.message


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("op.execute('SELECT * FROM absent')", 'UndefinedTable: relation "absent" does not exist, in '),
        ("raise RuntimeError('by itself')", "RuntimeError: by itself, in "),
        ("raise SystemExit(3)", "SystemExit: 3, in "),
        (
            "op.execute(\"INSERT INTO stamps (id, text) VALUES (1, 'jane@example.com'), (1, 'x')\")",
            'UniqueViolation: duplicate key value violates unique constraint "stamps_pkey", in ',
        ),
        ("op.execute(\"SELECT 'jane@example.com'::int\")", "InvalidTextRepresentation (SQLSTATE 22P02), in "),
    ],
)
def test_a_migration_that_fails(
    body: str, told: str, make_app: MakeApp, own_settings: Settings, tmp_path: Path
) -> None:
    third = tables.revision("0003", "0002", body)
    app = make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_bad.py": third}))

    message = refused(app)

    assert f"plugin 'stamps' of an unknown package: its migrations failed with {told}{tmp_path}/0003_bad.py, line" in (
        message
    )
    assert message.endswith("set CTMS_PLUGINS_DISABLED=stamps")
    assert "jane" not in message
    # What was finished is kept, and the connection goes back as it was.
    assert query(own_settings, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0002",)]
    assert "at the revision 0002, not 0003: run `flask db upgrade`" in check_problem(app)


def check_problem(app: Flask) -> str:
    """Return why the service does not start."""
    with app.app_context(), pytest.raises(OperatorError) as raised:
        check_migrated()
    return raised.value.message


def test_tables_without_a_schema_are_the_plugins(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    before = query(own_settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    app = make_app(Stamps(tmp_path, tables.REVISIONS, ("stamps:read",)))

    with app.app_context():
        upgrade_plugins()
        upgrade_plugins()
        check_migrated()
        upgrade()

    assert query(own_settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'plugin_stamps' ORDER BY 1") == [
        ("alembic_version",),
        ("stamps",),
    ]
    assert query(own_settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1") == before


def test_a_revision_that_is_no_python_is_named(make_app: MakeApp, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        make_app(Stamps(tmp_path, {"0001_bad.py": "def ("}))

    assert "whose revisions cannot be read (SyntaxError: " in raised.value.message
    assert f", in {tmp_path}/0001_bad.py, line 1: " in raised.value.message


def test_a_name_that_is_too_long_for_a_schema(make_app: MakeApp, tmp_path: Path) -> None:
    long = type("S" * 57, (Stamps,), {})

    with pytest.raises(PluginError, match="ctms_migrations needs a name of 56 characters at most"):
        make_app(long(tmp_path, tables.REVISIONS))


def test_an_older_version_of_the_plugin(make_app: MakeApp, tmp_path: Path) -> None:
    with make_app(Stamps(tmp_path / "newer", tables.REVISIONS)).app_context():
        upgrade_plugins()
    older = make_app(Stamps(tmp_path / "older", {"0001_stamps.py": tables.FIRST}))

    for message in (refused(older), check_problem(older)):
        assert "its tables are at the revision 0002, which this version does not have" in message


def test_a_permission_that_a_plugin_left(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    heir = make_app(Heir(tmp_path / "heir", tables.REVISIONS, ("stamps:read",)))
    query(own_settings, "INSERT INTO permissions (name, description) VALUES ('stamps:read', 'Mine')")
    with heir.app_context():
        upgrade_plugins()  # an operator made it: it becomes the plugin's
    app = make_app(Stamps(tmp_path / "stamps", tables.REVISIONS, ("stamps:read", "stamps:write")))

    message = refused(app)
    assert "'stamps:read', a permission that the plugin heir left" in message
    assert "run `flask ctms plugins purge heir`" in message
    whose = "SELECT name, plugin FROM permissions WHERE name ~ ':' ORDER BY 1"
    assert query(own_settings, whose) == [("stamps:read", "heir")]

    with app.app_context():
        purge("heir")
        upgrade_plugins()
    assert query(own_settings, whose) == [("stamps:read", "stamps"), ("stamps:write", "stamps")]


def test_the_heartbeat_warns_and_never_fails(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    app = make_app(Stamps(tmp_path, tables.REVISIONS, ("stamps:read",)))

    with app.app_context():
        found = run_health_checks()
        assert found["checks"]["migrations"] == "warning"
        message = found["details"]["migrations"]["message"]
        assert "its tables are at the revision none, not 0002: run `flask db upgrade`; " in message
        assert "its permission stamps:read is not stored: run `flask db upgrade`" in message

        upgrade_plugins()
        assert run_health_checks()["checks"]["migrations"] == "ok"

        query(own_settings, "DELETE FROM permissions WHERE name = 'stamps:read'")
        assert run_health_checks()["checks"]["migrations"] == "warning"
        assert "its permission stamps:read is not stored" in check_problem(app)


def test_a_process_older_than_the_plugin_asks_for_a_restart(make_app: MakeApp, tmp_path: Path) -> None:
    newer = make_app(Stamps(tmp_path / "newer", tables.REVISIONS))
    older = make_app(Stamps(tmp_path / "older", {"0001_stamps.py": tables.FIRST}))
    with newer.app_context():
        upgrade_plugins()

    with older.app_context():
        message = run_health_checks()["details"]["migrations"]["message"]

    assert message.endswith("restart the service, or install that version of an unknown package")
    assert "flask db upgrade" not in message
    assert message == check_problem(older)


def test_what_others_hang_on_the_tables_stops_a_purge(
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
    assert len(query(own_settings, "SELECT FROM permissions")) == 4


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
def test_nothing_outside_the_schema_goes_with_a_purge(
    dependent: str, with_objects: Flask, own_settings: Settings
) -> None:
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
    query(own_settings, "CREATE TABLE plugin_stamps.theirs (id integer)")

    with make_app().app_context(), pytest.raises(NotFoundError):
        purge("stamps")

    assert query(own_settings, "SELECT tablename FROM pg_tables WHERE schemaname = 'plugin_stamps'") == [("theirs",)]


def test_a_role_that_may_not_create_schemas(
    make_app: MakeApp, own_settings: Settings, tmp_path: Path, worker_id: str
) -> None:
    role = f"limited_{worker_id}"
    query(own_settings, f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    try:
        for kind in ("TABLES", "SEQUENCES"):
            query(own_settings, f"GRANT ALL ON ALL {kind} IN SCHEMA public TO {role}")
        url = make_url(str(own_settings.db_url)).set(username=role, password="x")
        app = make_app(Stamps(tmp_path, tables.REVISIONS), db_url=url.render_as_string(hide_password=False))

        assert "its migrations stopped, the database does not allow it: permission denied for database" in refused(app)

        query(own_settings, f"CREATE SCHEMA plugin_stamps AUTHORIZATION {role}")
        with app.app_context():
            upgrade_plugins()
            check_migrated()
    finally:
        query(own_settings, f"DROP OWNED BY {role} CASCADE")
        query(own_settings, f"DROP ROLE {role}")
