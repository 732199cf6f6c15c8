"""Tables and permissions of plugins, as operators meet them: each command in a process of its own, on PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory

from ctms.database.pool import libpq_url
from ctms.paths import MIGRATIONS
from tests import tables
from tests.conftest import SECRET_KEY, empty_database
from tests.database.plugin_rows import permissions_of, purges, query, tables_of
from tests.docs.messages import is_documented
from tests.hooks.distributions import install
from tests.serving import environment_for, free_port, run_flask, upgrade_twice_at_once

Flask = Callable[..., subprocess.CompletedProcess[str]]
NEWEST = str(ScriptDirectory(str(MIGRATIONS)).get_current_head())


@pytest.fixture(scope="module")
def url(postgres: str, worker_id: str) -> str:
    return empty_database(postgres, f"plugin_migrations_{worker_id}")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Where packages are installed."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def flask(url: str, site: Path, tmp_path: Path) -> Iterator[Flask]:
    """Runs `flask …` beside the packages in `site`, on a database that has nothing of plugins."""
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY, PYTHONPATH=str(site))

    def run(*arguments: str, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = run_flask(*arguments, environment={**environment, **variables}, cwd=str(tmp_path))
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done

    yield run
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        names = connection.execute("SELECT nspname FROM pg_namespace WHERE starts_with(nspname, 'plugin_')")
        for (name,) in names.fetchall():
            connection.execute(f'DROP SCHEMA "{name}" CASCADE'.encode())
        if connection.execute("SELECT to_regclass('permissions')").fetchone() != (None,):
            connection.execute("DELETE FROM permissions WHERE name ~ ':'")


def migrations_of(flask: Flask, **variables: str) -> Any:
    """Return the plugin's tables in `plugins check`."""
    return json.loads(flask("ctms", "plugins", "check", "stamps", "--json", **variables).stdout)["migrations"]


def uninstall(site: Path) -> None:
    for folder in site.iterdir():
        shutil.rmtree(folder)


def test_the_life_of_a_plugin_with_a_table(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    flask("db", "upgrade")
    install(tables.write(tmp_path), site)

    # Not migrated: no tables exist, and every check reports it.
    lacks = (
        "plugin 'stamps' of acme-stamps 1.2.3: its tables are at the revision none, not 0002: run `flask db upgrade`"
    )
    assert lacks in flask("ctms", "serve", PORT=str(free_port()), status=1).stderr
    assert lacks in flask("ctms", "worker", "--once", status=1).stderr
    checked = flask("db", "check", status=1)
    assert lacks in checked.stderr
    assert checked.stdout == ""
    assert "plugin stamps: none (not the head)" in flask("db", "current").stdout
    assert migrations_of(flask) == {"head": "0002", "revision": None, "problem": lacks}

    assert flask("db", "upgrade").stdout == "CTMS: nothing to do\nplugin stamps: upgraded to 0002\n"
    assert flask("db", "upgrade").stdout == "CTMS: nothing to do\nplugin stamps: nothing to do\n"
    assert tables_of(url) == ["alembic_version", "stamps"]
    assert query(url, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0002",)]
    assert query(url, "SELECT version_num FROM alembic_version") == [(NEWEST,)]  # as the older service wants it
    assert {"stamps:read": "stamps", "stamps:write": "stamps"}.items() <= permissions_of(url).items()
    assert "plugin stamps: 0002 (head)" in flask("db", "current").stdout
    assert migrations_of(flask) == {"head": "0002", "revision": "0002", "problem": None}
    assert re.search(
        r"^head: +0002\nrevision: +0002\n", flask("ctms", "plugins", "check", "stamps").stdout, re.MULTILINE
    )
    flask("db", "check")
    flask("db", "upgrade")

    assert flask("ctms", "stamps", "one").stdout == "1\n"
    flask("ctms", "stamps", "fails", status=1)
    assert flask("ctms", "stamps").stdout == "1\n"
    shown = flask("ctms", "permissions", "list").stdout.splitlines()
    assert {line.split()[0]: line.split()[-1] for line in shown}.items() >= {
        "name": "plugin",
        "stamps:read": "stamps",
        "view_contacts": "-",
    }.items()
    flask("ctms", "roles", "create", "stamper")
    flask("ctms", "roles", "grant", "stamper", "stamps:write")
    refused = flask("ctms", "permissions", "delete", "stamps:read", "--yes", status=10).stderr
    assert "plugin 'stamps' of acme-stamps 1.2.3 declares it" in refused
    assert "stamps is on" in flask("ctms", "plugins", "purge", "stamps", "--yes", status=10).stderr

    # Uninstalled or off: it is ignored, and its tables stay.
    uninstall(site)
    flask("db", "upgrade")
    flask("db", "check")
    flask("ctms", "worker", "--once")
    assert "stamps: 0002 (not in use: `flask ctms plugins purge stamps`" in flask("db", "current").stdout
    assert query(url, "SELECT text FROM plugin_stamps.stamps") == [("one",)]

    asked = flask("ctms", "plugins", "purge", "stamps", status=1).stderr
    assert "drop plugin_stamps.stamps with all rows and delete the permissions stamps:read, stamps:write" in asked
    assert "(of stamper)" in asked
    assert tables_of(url) == ["alembic_version", "stamps"]
    before = purges(url)
    assert flask("ctms", "plugins", "purge", "stamps", "--yes").stdout == "stamps\n"
    assert purges(url) == before + 1
    assert query(url, "SELECT nspname FROM pg_namespace WHERE nspname = 'plugin_stamps'") == []
    assert not {"stamps:read", "stamps:write"} & permissions_of(url).keys()
    again = flask("ctms", "plugins", "purge", "stamps", "--yes", status=4).stderr
    assert "stamps has stored nothing; those that have are none" in again
    flask("db", "check")
    flask("ctms", "roles", "delete", "stamper", "--yes")


def test_a_plugin_is_checked_without_a_database(flask: Flask, site: Path, tmp_path: Path) -> None:
    install(tables.write(tmp_path), site)

    unreachable = migrations_of(flask, CTMS_DB_URL="postgresql://ctms:pa55word@127.0.0.1:1/ctms")
    assert (unreachable["head"], unreachable["revision"]) == ("0002", None)
    assert unreachable["problem"].startswith("the database cannot be reached: ")
    assert "pa55word" not in unreachable["problem"]

    folder = tmp_path / "embedded"
    stopped = migrations_of(flask, CTMS_DB_URL="", CTMS_SECRET_KEY="", CTMS_DATA_DIR=str(folder))
    assert stopped == {"head": "0002", "revision": None, "problem": "the embedded database is not running"}
    assert not (folder / "postgresql").exists()


def test_a_disabled_plugin_can_be_purged(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    install(tables.write(tmp_path), site)
    flask("db", "upgrade")
    flask("ctms", "stamps", "one")

    flask("db", "upgrade", CTMS_PLUGINS_DISABLED="stamps")
    assert tables_of(url) == ["alembic_version", "stamps"]
    flask("ctms", "plugins", "purge", "stamps", "--yes", CTMS_PLUGINS_DISABLED="stamps")
    assert tables_of(url) == []

    flask("db", "upgrade")
    assert flask("ctms", "stamps").stdout == "0\n"


def test_an_existing_deployment_and_the_way_back(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    flask("db", "upgrade")
    flask("db", "downgrade", "2b00e4069aea")
    query(url, "INSERT INTO permissions (name, description) VALUES ('stamps:read', 'Mine')")
    install(tables.write(tmp_path), site)

    assert f"CTMS: upgraded to {NEWEST}\n" in flask("db", "upgrade").stdout
    assert permissions_of(url)["stamps:read"] == "stamps"
    flask("ctms", "stamps", "one")

    flask("db", "downgrade", "2b00e4069aea")
    assert query(url, "SELECT version_num FROM alembic_version") == [("2b00e4069aea",)]
    assert query(url, "SELECT text FROM plugin_stamps.stamps") == [("one",)]
    assert "at revision 2b00e4069aea" in flask("ctms", "serve", PORT=str(free_port()), status=1).stderr
    flask("db", "upgrade")
    assert permissions_of(url)["stamps:read"] == "stamps"
    assert flask("ctms", "stamps").stdout == "1\n"

    held = flask("db", "downgrade", "base", status=1).stderr
    assert "flask ctms plugins purge" in held
    assert len(held.strip().splitlines()) == 1
    flask("db", "upgrade")


def test_the_migrations_of_one_plugin(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    install(tables.write(tmp_path), site)
    flask("db", "upgrade", "head")

    flask("db", "--plugin", "stamps", "downgrade", "0001")
    assert query(url, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0001",)]
    assert "0001" in flask("db", "--plugin", "stamps", "current").stdout
    assert "at the revision 0001, not 0002" in flask("db", "check", status=1).stderr
    flask("db", "upgrade", NEWEST)  # one of ours: plugins are left as they are
    assert query(url, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0001",)]
    assert 'CREATE SCHEMA "plugin_stamps"' in flask("db", "--plugin", "stamps", "upgrade", "--sql").stdout
    flask("db", "--plugin", "stamps", "check", status=1)
    flask("db", "--plugin", "stamps", "upgrade")
    assert "No upgrade is due." in flask("db", "--plugin", "stamps", "check").stdout

    a_third = ("db", "--plugin", "stamps", "revision", "-m", "a third", "--rev-id", "0003")
    (refused,) = flask(*a_third, status=1).stderr.splitlines()
    assert "an installed copy" in refused
    assert "run `pip install --editable .`" in refused
    assert is_documented(refused)
    assert list(site.rglob("*a_third*")) == []
    project = tmp_path / "acme-stamps"
    flask(*a_third, PYTHONPATH=f"{project}{os.pathsep}{site}")  # as an editable installation
    (made,) = (project / "acme_stamps" / "migrations").glob("*_0003_a_third.py")
    assert 'down_revision = "0002"' in made.read_text()
    formatted = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", str(made)]
    subprocess.run(formatted, check=True, capture_output=True)
    assert list((MIGRATIONS / "versions").glob("*a_third*")) == []
    flask("db", "--plugin", "stamps", "downgrade", "base")
    assert tables_of(url) == ["alembic_version"]
    assert "no enabled plugin nobody has migrations; plugins with migrations: stamps" in (
        flask("db", "--plugin", "nobody", "upgrade", status=4).stderr
    )


FAULTS = {
    "values": "op.execute(\"INSERT INTO stamps (id, text) VALUES (1, 'jane@x.org'), (1, 'x')\")",
    "python": "raise RuntimeError('jane@x.org')",  # Flask-Migrate prints these
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_from_all_commands(fault: str, flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    flask("db", "upgrade")
    bad = tables.revision("0003", "0002", FAULTS[fault], FAULTS[fault])
    install(tables.write(tmp_path, revisions={**tables.REVISIONS, "0003_bad.py": bad}), site)
    place = f"in {site}/acme_stamps/migrations/0003_bad.py, line "

    def failed(*arguments: str) -> None:
        done = flask("db", "--plugin", "stamps", *arguments, status=1)
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
        assert line.startswith("Error: plugin 'stamps' of acme-stamps 1.2.3: its migrations failed with ")
        assert place in line
        assert "jane" not in done.stdout + done.stderr

    failed("upgrade")
    failed("upgrade", "+1")
    failed("upgrade", "0003")
    flask("db", "--plugin", "stamps", "stamp", "0003")
    failed("downgrade")
    failed("downgrade", "0001")
    query(url, "ALTER TABLE plugin_stamps.alembic_version ADD CHECK (version_num <> '0002')")
    stopped = flask("db", "--plugin", "stamps", "stamp", "0002", status=1).stderr
    assert "its migrations failed with CheckViolation: " in stopped
    assert "DETAIL" not in stopped


def test_a_fault_of_our_own_migrations_is_one_line(flask: Flask, url: str) -> None:
    flask("db", "upgrade")
    flask("db", "downgrade", "2b00e4069aea")
    query(url, "INSERT INTO emails (email_id, primary_email) VALUES (gen_random_uuid(), 'jane@x.org')")
    query(
        url,
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION '%', (SELECT primary_email FROM emails); END $$",
    )
    query(url, "CREATE EVENT TRIGGER refusing ON ddl_command_start EXECUTE FUNCTION refuse()")
    try:
        for command in (["upgrade"], ["upgrade", "+1"]):
            (line,) = [
                line for line in flask("db", *command, status=1).stderr.splitlines() if not line.startswith("INFO")
            ]
            assert line.startswith(
                f"Error: a migration failed with RaiseException (SQLSTATE P0001), in {MIGRATIONS}/versions/"
            )
    finally:
        query(url, "DROP EVENT TRIGGER refusing; DROP FUNCTION refuse")
        query(url, "DELETE FROM emails")
    flask("db", "upgrade")


def test_two_starts_at_once_do_no_harm(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    flask("db", "upgrade")
    slow = tables.FIRST.replace("def upgrade():", "def upgrade():\n    op.execute('SELECT pg_sleep(1)')")
    install(tables.write(tmp_path, revisions={**tables.REVISIONS, "0001_stamps.py": slow}), site)
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY, PYTHONPATH=str(site))

    upgrade_twice_at_once(environment)

    assert query(url, "SELECT version_num FROM plugin_stamps.alembic_version") == [("0002",)]


FAILING = """
import click

from ctms.plugins import hookimpl, reading

STATEMENTS = {
    "unique": "INSERT INTO emails (email_id, primary_email) SELECT gen_random_uuid(), 'same@example.com'"
    " FROM generate_series(1, 2)",
    "uuid": "SELECT 'same@example.com'::uuid",
    "table": "SELECT * FROM stamps",
    "column": "SELECT middle_name FROM emails",
    "raise": "DO $$ BEGIN RAISE unique_violation USING MESSAGE = 'same@example.com'; END $$",
}


@click.command()
@click.argument("name")
def fails(name):
    with reading() as connection:
        connection.execute(STATEMENTS[name])


@hookimpl
def ctms_commands():
    yield fails
"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unique", 'UniqueViolation: duplicate key value violates unique constraint "'),
        ("uuid", "InvalidTextRepresentation (SQLSTATE 22P02), in "),
        (
            "table",
            'UndefinedTable: relation "stamps" does not exist (the tables of the plugin are named plugin_stamps.',
        ),
        ("column", 'UndefinedColumn: column "middle_name" does not exist (the tables'),
        ("raise", "UniqueViolation (SQLSTATE 23505), in "),
    ],
)
def test_an_error_of_the_database_in_a_command_is_one_line_without_values(
    name: str, told: str, flask: Flask, site: Path, tmp_path: Path
) -> None:
    install(tables.write(tmp_path, revisions={}, source=FAILING), site)
    flask("db", "upgrade")

    (line,) = flask("ctms", "fails", name, status=1).stderr.splitlines()

    assert line.startswith(f"Error: plugin 'stamps' of acme-stamps 1.2.3: its command fails failed with {told}")
    assert line.endswith(f", in {site}/acme_stamps/__init__.py, line 20")
    assert "same@" not in line
    assert is_documented(line)
    traced = flask("ctms", "fails", name, status=1, CTMS_PLUGINS_TRACE="true", CTMS_USE_MOZLOG="false").stderr
    assert f'File "{site}/acme_stamps/__init__.py", line 20, in fails' in traced
    assert "same@" not in traced


def test_a_missing_table_in_a_health_check_is_named(flask: Flask, url: str, site: Path, tmp_path: Path) -> None:
    install(tables.write(tmp_path), site)
    flask("db", "upgrade")
    query(url, "ALTER TABLE plugin_stamps.stamps RENAME TO gone")

    warning = flask("ctms", "worker", "--once", CTMS_LOGGING_LEVEL="CRITICAL").stderr

    assert (
        'CTMS: warning: stamps: the check failed with UndefinedTable: relation "plugin_stamps.stamps" does not exist'
        " (the tables of the plugin are named plugin_stamps.…)"
    ) in warning


def test_a_missing_table_of_a_database_that_is_not_upgraded(flask: Flask, site: Path, tmp_path: Path) -> None:
    install(tables.write(tmp_path), site)
    flask("db", "upgrade", NEWEST)

    (line,) = flask("ctms", "stamps", status=1).stderr.splitlines()

    assert line.endswith("its tables are at the revision none, not 0002: run `flask db upgrade`")


def test_a_missing_table_of_ours_at_the_newest_revision_is_named(flask: Flask, url: str) -> None:
    flask("db", "upgrade")
    query(url, "ALTER TABLE permissions RENAME TO gone")
    try:
        (line,) = flask("ctms", "permissions", "list", status=1).stderr.splitlines()
    finally:
        query(url, "ALTER TABLE gone RENAME TO permissions")

    assert 'UndefinedTable: relation "permissions" does not exist, although the database is at the newest' in line
    assert "flask db upgrade" not in line
    assert is_documented(line)
