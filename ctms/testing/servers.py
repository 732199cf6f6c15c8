"""The PostgreSQL of tests: one server per test run, a database for each of its processes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from ctms.database.pool import libpq_url
from ctms.database.storage import is_root

ONLY_PROCESS = "master"

SERVER_VARIABLE = "CTMS_TEST_DB_URL"
"""Environment variable with the URL of a server for tests, as a superuser, in place of the embedded one."""

DATABASE_PREFIX = "ctms_test_"
"""Beginning of the names of all databases that tests drop and create."""


def process_name(config: pytest.Config) -> str:
    """Return the name of this process of the test run: that of pytest-xdist, else `master`."""
    return str(getattr(config, "workerinput", {"workerid": ONLY_PROCESS})["workerid"])


def folder_of_run(config: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this test run, created if missing, that the server's user can reach."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if process_name(config) == ONLY_PROCESS else base.parent) / "ctms"
    folder.mkdir(exist_ok=True)
    let_server_enter(folder)
    return folder


def let_server_enter(folder: Path) -> None:
    """Allow the embedded server to enter a folder of this test run: as root it has a different user.

    pytest closes its folders to other users. Folders outside the temporary folder do not change.
    """
    temporary = Path(tempfile.gettempdir()).resolve()
    for one in (folder.resolve(), *folder.resolve().parents) if is_root() else ():
        if one.is_relative_to(temporary) and one != temporary:
            one.chmod(one.stat().st_mode | 0o011)


def without_durability(server: str) -> None:
    """Disable waiting for the disk: a machine that crashes during a test run loses nothing of value."""
    with psycopg.connect(libpq_url(server), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")


def empty_database(server: str, name: str) -> str:
    """Create an empty database on the server with this SQLAlchemy URL, replacing an earlier one; return its URL.

    The database's name is `DATABASE_PREFIX` and the given one, because an external server may have other databases.
    """
    name = DATABASE_PREFIX + name
    with psycopg.connect(libpq_url(server), autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}"')
    return make_url(server).set(database=name).render_as_string(hide_password=False)
