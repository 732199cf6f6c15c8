"""Effects of plugins' migrations and permissions on the database, and their refusals, in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import flask_migrate
import psycopg
import pytest
import sqlalchemy
from flask import Flask
from sqlalchemy.engine import make_url

from ctms.database.alembic_config import chosen
from ctms.database.engine import db
from ctms.database.migrations import check_migrated, plugin_schemas, upgrade, upgrade_plugins
from ctms.database.pool import libpq_url
from ctms.database.purge import purge
from ctms.errors import OperatorError, PluginError
from ctms.paths import MIGRATIONS
from ctms.settings import Settings
from ctms.telemetry.health import run_health_checks
from tests import tables
from tests.docs.messages import is_documented
from tests.plugin_databases import Heir, MakeApp, Stamps, query
from tests.waiting import until, wait_until


def refused(app: Flask) -> str:
    """Return why the migrations of plugins stop."""
    with app.app_context(), pytest.raises(PluginError) as raised:
        upgrade_plugins()
    assert raised.value.plugins == ("stamps",)
    return raised.value.message


def raising(message: str, condition: str = "raise_exception") -> str:
    """Return the Python that has PostgreSQL raise this."""
    return f"op.execute(\"DO $$ BEGIN RAISE {condition} USING MESSAGE = '{message}', TABLE = '{message}'; END $$\")"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("op.execute('SELECT * FROM absent')", 'UndefinedTable: relation "absent" does not exist, in '),
        ("raise RuntimeError('jane@example.com')", "RuntimeError, in "),
        ("raise SystemExit('jane@example.com')", "SystemExit, in "),
        ("raise type('Stop', (BaseException,), {})('jane@example.com')", "Stop, in "),
        ("int('jane@example.com')", "ValueError, in "),
        ('op.execute("SELECT \'jane@example.com")', "SyntaxError (SQLSTATE 42601), in "),
        (raising("jane@example.com"), "RaiseException (SQLSTATE P0001), in "),
        (raising("jane@example.com", "undefined_table"), "UndefinedTable (SQLSTATE 42P01), in "),
        (
            "op.execute(\"INSERT INTO stamps (id, text) VALUES (1, 'jane@example.com'), (1, 'x')\")",
            'UniqueViolation: duplicate key value violates unique constraint "stamps_pkey", in ',
        ),
        ("op.execute(\"SELECT 'jane@example.com'::int\")", "InvalidTextRepresentation (SQLSTATE 22P02), in "),
    ],
    ids=lambda value: value if value.endswith(" ") else "",
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
    # Finished revisions are kept, and the connection is reset.
    assert query(own_settings, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0002",)]
    assert "at the revision 0002, not 0003: run `flask db upgrade`" in check_problem(app)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (raising("jane@example.com", "query_canceled"), "the database did not do it, try again: QueryCanceled, in "),
        (raising("jane@example.com", "insufficient_privilege"), "the database does not allow it: InsufficientPriv"),
        (
            "op.get_bind().connection.driver_connection.close()\n    op.execute('SELECT 1')",
            "the connection is closed, in",
        ),
    ],
    ids=["canceled", "refused", "closed"],
)
def test_a_migration_that_the_database_stops(body: str, told: str, make_app: MakeApp, tmp_path: Path) -> None:
    third = tables.revision("0003", "0002", body)

    message = refused(make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_bad.py": third})))

    assert "its migrations stopped, the database " in message
    assert told in message
    assert f", in {tmp_path}/0003_bad.py, line " in message
    assert "jane" not in message


@pytest.mark.parametrize(
    "body",
    ["op.get_bind().close()", "op.get_bind().invalidate()", "op.get_bind().connection.driver_connection.close()"],
)
def test_a_migration_that_closes_the_connection(
    body: str, make_app: MakeApp, own_settings: Settings, tmp_path: Path
) -> None:
    third = tables.revision("0003", "0002", body)
    app = make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_bad.py": third}))

    for _ in range(2):
        message = refused(app)
        assert f"one of its migrations closed the connection that it was given, in {tmp_path}/0003_bad.py: " in message
    locks = "SELECT FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory'"
    # The server releases the locks of a session when it notices that its client has closed the connection.
    left = until(lambda: query(own_settings, f"{locks} AND datname = current_database()"), lambda found: not found)
    assert left == []


def test_settings_of_a_revision_are_reset_after_it(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    settings = "op.execute('SET search_path = public; SET lock_timeout = 1; SET work_mem = 64')"
    third = tables.revision("0003", "0002", settings, settings)
    fourth = tables.revision("0004", "0003", "op.execute('CREATE TABLE later AS SELECT FROM stamps')")
    app = make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_path.py": third, "0004_later.py": fourth}))

    with app.app_context():
        upgrade_plugins()
        with db.engine.connect() as connection:
            left = [
                connection.execute(sqlalchemy.text(f"SHOW {name}")).scalar() for name in ("search_path", "work_mem")
            ]
    assert left == ['"$user", public', "4MB"]
    where = query(own_settings, "SELECT schemaname FROM pg_tables WHERE tablename = 'later'")
    assert where == [("plugin_stamps",)]


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


def test_a_revision_with_a_syntax_error_is_named(make_app: MakeApp, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        make_app(Stamps(tmp_path, {"0001_bad.py": "def ("}))

    assert "whose revisions cannot be read (SyntaxError: " in raised.value.message
    assert f", in {tmp_path}/0001_bad.py, line 1: " in raised.value.message


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ("revision = ''", "the revision of 0003_bad.py is empty: name it"),
        ("revision = 3", "0003_bad.py has no revision that is text: give it one in quotes"),
        ("revision = ['0003']", "0003_bad.py has no revision that is text"),
        ("revision = b'0003'", "0003_bad.py has no revision that is text"),
        ("", "0003_bad.py has no revision that is text"),
        ("revision = '0003'; down_revision = 2", "0003_bad.py has no down_revision that is text"),
        ("revision = '0003'; down_revision = ('0002', 1)", "0003_bad.py has no down_revision that is text"),
        ("revision = '0003'; down_revision = '0002'; depends_on = 1", "0003_bad.py has no depends_on that is text"),
    ],
)
def test_a_revision_without_a_usable_id(ids: str, told: str, make_app: MakeApp, tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        make_app(Stamps(tmp_path, {**tables.REVISIONS, "0003_bad.py": f"down_revision = '0002'\n{ids}"}))

    assert f"the folder {tmp_path}, where {told}" in raised.value.message
    assert is_documented(raised.value.message)


def test_a_first_revision_that_fails_leaves_nothing(make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    refused(make_app(Stamps(tmp_path, {"0001_bad.py": tables.revision("0001", None, "int('x')")})))

    assert query(own_settings, "SELECT FROM pg_namespace WHERE nspname = 'plugin_stamps'") == []


@pytest.mark.parametrize("object_", ["FUNCTION f() RETURNS integer LANGUAGE sql AS 'SELECT 1'", "TABLE t ()"])
def test_a_schema_of_somebody_else(object_: str, make_app: MakeApp, own_settings: Settings, tmp_path: Path) -> None:
    query(own_settings, f"CREATE SCHEMA plugin_stamps; SET search_path = plugin_stamps; CREATE {object_}")
    query(own_settings, "CREATE TABLE plugin_stamps.alembic_version AS SELECT '0001'::varchar AS version_num")
    app = make_app(Stamps(tmp_path, tables.REVISIONS))

    message = refused(app)

    assert (
        "the schema plugin_stamps is in use, and CTMS has not created it: rename it; if it is the plugin's" in message
    )
    assert is_documented(message)
    assert "at the revision none, not 0002" in check_problem(app)
    assert query(own_settings, "SELECT to_regclass('plugin_stamps.stamps')") == [(None,)]

    query(own_settings, message.partition("run ")[2])
    query(own_settings, "UPDATE plugin_stamps.alembic_version SET version_num = '0002'")
    with app.app_context():
        upgrade_plugins()
        check_migrated()


def test_the_sql_script_of_a_first_upgrade_marks_the_schema(
    make_app: MakeApp, own_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app(Stamps(tmp_path, tables.REVISIONS))
    with app.app_context(), chosen(plugin_schemas().migrations["stamps"]):
        for revisions in ("head", "0001:0002"):
            flask_migrate.upgrade(directory=str(MIGRATIONS), revision=revisions, sql=True)
    first, _, second = capsys.readouterr().out.partition("COMMIT;")

    assert "CREATE SCHEMA" not in second
    query(own_settings, f"{first}COMMIT")
    with app.app_context():
        check_migrated()


WAITING = "another process migrates the database: waiting until it has finished"


@pytest.mark.parametrize("work", [upgrade, lambda: plugin_schemas().store_permissions()])
def test_a_second_upgrade_waits_without_limit(
    work: Callable[[], None],
    make_app: MakeApp,
    own_settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = make_app(Stamps(tmp_path, {"0001.py": tables.FIRST}, ("stamps:read",)), db_statement_timeout=1)

    def run() -> None:
        with app.app_context():
            work()

    url = libpq_url(str(own_settings.db_url))
    with ThreadPoolExecutor() as threads, psycopg.connect(url, autocommit=True) as first:
        first.execute("SELECT pg_advisory_lock(hashtext('ctms migrations'))")
        done = threads.submit(run)
        if work is upgrade:
            wait_until(lambda: WAITING in caplog.messages)
        time.sleep(1.5)
        assert not done.done(), f"it did not wait: {done.exception()}"
        # It does not wait inside a statement, for which CREATE INDEX CONCURRENTLY of the first would wait.
        first.execute("CREATE TABLE IF NOT EXISTS indexed (number int)")
        first.execute("CREATE INDEX CONCURRENTLY ON indexed (number)")
        first.execute("DROP TABLE indexed")
        first.execute("SELECT pg_advisory_unlock_all()")
        done.result()

    if work is upgrade:
        assert caplog.messages.count(WAITING) == 1


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
        upgrade_plugins()  # an operator created it: the plugin takes it over
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
