"""Older versions on tables that a newer version has migrated: which start, and which refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import flask_migrate
import pytest
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from ctms.app import create_app
from ctms.cli.migrate import db
from ctms.database.alembic_config import chosen, init_flask_migrate
from ctms.database.compatibility import ATTRIBUTE, compatible_revisions
from ctms.database.engine import release_database
from ctms.database.migrations import (
    check_migrated,
    head,
    plugin_schemas,
    read_own_state,
    upgrade,
    upgrade_plugins,
)
from ctms.errors import OperatorError, PluginError
from ctms.paths import MIGRATIONS
from ctms.settings import Settings
from ctms.telemetry.health import run_health_checks
from tests import tables
from tests.conftest import empty_database
from tests.docs.messages import is_documented
from tests.plugin_databases import MakeApp, Stamps, query

BEFORE_DECLARATIONS = "c05192eb3d38"
"""The newest revision without a declaration: no released version is older."""

NEWER = "ffffffffffff"


def revision(number: str, down: str | None, compatible: str | None = None, work: str = "pass") -> str:
    """Return the text of a revision that declares the oldest compatible one, or nothing."""
    declared = "" if compatible is None else f'{ATTRIBUTE} = "{compatible}"\n'
    return declared + tables.revision(number, down, work)


def scripts(folder: Path, *files: str) -> ScriptDirectory:
    for number, text in enumerate(files, 1):
        (folder / f"{number:04}.py").write_text(text)
    return ScriptDirectory(str(MIGRATIONS), version_locations=[str(folder)])


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ((None, None, None), ["0003"]),
        ((None, "0001", "0002"), ["0003", "0002"]),
        ((None, "unchanged", "unchanged"), ["0003", "0002", "0001"]),
        (("unchanged", "unchanged", "0002"), ["0003", "0002"]),
        ((None, None, "unchanged"), ["0003", "0002"]),
        ((None, "0001", "0001"), ["0003", "0002", "0001"]),
        ((None, "0001", None), ["0003"]),
        # The second one is compatible with no older version, so the third one cannot be.
        ((None, None, "0001"), ["0003", "0002"]),
        ((None, None, "0002"), ["0003", "0002"]),
        ((None, "0001", "0003"), ["0003"]),
    ],
)
def test_compatible_revisions(declared: tuple[str | None, ...], expected: list[str], tmp_path: Path) -> None:
    downs = (None, "0001", "0002")
    files = [revision(f"{n:04}", down, own) for n, (down, own) in enumerate(zip(downs, declared, strict=True), 1)]

    assert compatible_revisions(scripts(tmp_path, *files), "0003") == expected


@pytest.mark.parametrize("declared", ["0002", "unheard-of"])
def test_a_declaration_of_no_earlier_revision(declared: str, make_app: MakeApp, tmp_path: Path) -> None:
    files = {"0001.py": revision("0001", None, declared), "0002.py": revision("0002", "0001")}

    with pytest.raises(PluginError) as raised:
        make_app(Stamps(tmp_path, files))

    assert f"0001.py has the oldest_compatible {declared!r}, which is no earlier revision" in raised.value.message
    assert is_documented(raised.value.message)


def test_each_revision_of_ours_declares_the_oldest_compatible_one() -> None:
    directory = ScriptDirectory(str(MIGRATIONS))
    newer = [script for script in directory.iterate_revisions("head", BEFORE_DECLARATIONS) if script is not None]

    assert [script.path for script in newer if not hasattr(script.module, ATTRIBUTE)] == []
    assert compatible_revisions(directory, head())[0] == head()


@pytest.fixture
def app(settings: Settings, postgres: str, worker_id: str) -> Iterator[Flask]:
    """An app on a migrated database of its own."""
    url = empty_database(postgres, f"compatibility_{worker_id}")
    made = create_app(replace(settings, db_url=url, erasure_key="k" * 32), [])
    with made.app_context():
        upgrade()
        yield made
    release_database(made)


def flask_db(app: Flask, command: str) -> tuple[int, str]:
    """Run `flask db …` with the app; return the exit status and standard output."""
    result = CliRunner().invoke(db, [command], obj=ScriptInfo(create_app=lambda: app))
    return result.exit_code, result.stdout


@pytest.fixture
def migrate_newer(app: Flask) -> Callable[..., None]:
    """Write what a newer version writes that is compatible with these revisions."""

    def migrate(*compatible: str, comment_of: str = NEWER) -> None:
        listed = ", ".join(f'"{one}"' for one in compatible)
        text = f'CTMS: {{"revision": "{comment_of}", "compatible": [{listed}]}}'
        settings = app.extensions["ctms.settings"]
        query(settings, f"UPDATE alembic_version SET version_num = '{NEWER}'")
        query(settings, f"COMMENT ON TABLE alembic_version IS '{text}'")

    return migrate


def test_tables_of_a_newer_version_that_is_compatible(app: Flask, migrate_newer: Callable[..., None]) -> None:
    migrate_newer(NEWER, head())
    reported: list[str] = []

    (warning,) = check_migrated()
    upgrade(reported.append)
    health = run_health_checks()

    assert warning == f"the database is at revision {NEWER} of a newer version, and compatible with this one"
    assert is_documented(warning)
    (message,) = reported
    assert message == "CTMS: nothing to do: the tables are those of a newer version, and compatible with this one"
    assert is_documented(message)
    assert read_own_state().revision == NEWER
    assert (health["status"], health["checks"]["migrations"]) == ("warning", "warning")
    assert health["details"]["migrations"]["message"] == "the schema is newer than this version, and compatible with it"
    assert flask_db(app, "current") == (0, f"{NEWER} (of a newer version, compatible with this one)\n")
    assert flask_db(app, "check") == (0, f"No upgrade is due: {warning}.\n")
    assert flask_db(app, "upgrade") == (0, f"{message}\n")


@pytest.mark.parametrize(
    ("compatible", "comment_of"),
    [((NEWER,), NEWER), ((), NEWER), ((NEWER, head()), "eeeeeeeeeeee")],
    ids=["contracted", "empty", "comment of another revision"],
)
def test_tables_of_a_newer_version_that_is_not(
    app: Flask, compatible: tuple[str, ...], comment_of: str, migrate_newer: Callable[..., None]
) -> None:
    migrate_newer(*compatible, comment_of=comment_of)

    for work in (check_migrated, upgrade):
        with pytest.raises(OperatorError) as raised:
            work()
        assert raised.value.message == (
            f"the database is at revision {NEWER} of a newer version, with which this version does not work: start the"
            f" newer version, or run `flask db downgrade {head()}` with it"
        )
        assert is_documented(raised.value.message)
    health = run_health_checks()
    assert (health["status"], health["checks"]["migrations"]) == ("error", "error")
    assert "not compatible with it" in health["details"]["migrations"]["message"]
    assert flask_db(app, "current") == (0, f"{NEWER} (of a newer version, not compatible with this one)\n")
    assert [flask_db(app, command)[0] for command in ("check", "upgrade")] == [1, 1]


@pytest.mark.parametrize("comment", ["NULL", "'Ours'", "'CTMS: '", "'CTMS: []'", "'CTMS: {\"revision\": 1}'"])
def test_a_comment_of_somebody_else(comment: str, app: Flask) -> None:
    settings = app.extensions["ctms.settings"]
    query(settings, f"COMMENT ON TABLE alembic_version IS {comment}")
    assert check_migrated() == []

    query(settings, f"UPDATE alembic_version SET version_num = '{NEWER}'")
    with pytest.raises(OperatorError, match="with which this version does not work"):
        check_migrated()


@pytest.mark.usefixtures("app")
def test_each_command_that_changes_the_revision_stores_what_is_compatible() -> None:
    directory = ScriptDirectory(str(MIGRATIONS))
    folder = str(MIGRATIONS)
    init_flask_migrate()

    assert read_own_state().compatible == set(compatible_revisions(directory, head()))
    flask_migrate.downgrade(directory=folder, revision=BEFORE_DECLARATIONS)
    assert read_own_state().compatible == {BEFORE_DECLARATIONS}
    flask_migrate.downgrade(directory=folder, revision="bf408da25c27")
    assert read_own_state().compatible == {"bf408da25c27"}
    flask_migrate.stamp(directory=folder, revision=BEFORE_DECLARATIONS)
    assert read_own_state().compatible == {BEFORE_DECLARATIONS}


class Older(Stamps):
    """Named like the newer plugin, since the name of the class is that of the plugin."""


Older.__name__ = "Stamps"


def test_an_older_version_of_a_plugin(make_app: MakeApp, tmp_path: Path) -> None:
    add = "op.execute('ALTER TABLE stamps ADD COLUMN colour text')"
    files = {"0001.py": tables.FIRST, "0002.py": revision("0002", "0001", "unchanged", add)}
    with make_app(Stamps(tmp_path / "newer", files)).app_context():
        upgrade_plugins()
    older = make_app(Older(tmp_path / "older", {"0001.py": tables.FIRST}))
    reported: list[str] = []

    with older.app_context():
        (warning,) = check_migrated()
        upgrade_plugins(report=reported.append)
        health = run_health_checks()

    assert "its tables are at the revision 0002 of a newer version, and compatible with this one" in warning
    assert is_documented(warning)
    assert reported == [
        "plugin stamps: nothing to do: the tables are those of a newer version, and compatible with this one"
    ]
    assert health["checks"]["migrations"] == "warning"
    assert health["details"]["migrations"]["message"] == warning


def test_the_sql_script_stores_what_is_compatible(
    make_app: MakeApp, own_settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add = "op.execute('ALTER TABLE stamps ADD COLUMN colour text')"
    app = make_app(Stamps(tmp_path, {"0001.py": tables.FIRST, "0002.py": revision("0002", "0001", "0001", add)}))
    with app.app_context(), chosen(plugin_schemas().migrations["stamps"]):
        flask_migrate.upgrade(directory=str(MIGRATIONS), sql=True)
    query(own_settings, capsys.readouterr().out)

    found = query(own_settings, "SELECT obj_description('plugin_stamps.alembic_version'::regclass, 'pg_class')")

    assert found == [('CTMS: {"revision": "0002", "compatible": ["0002", "0001"]}',)]
