"""Apps with plugins that have migrations, on a database of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.app import create_app
from ctms.database.engine import release_database
from ctms.database.migrations import upgrade
from ctms.database.pool import libpq_url
from ctms.plugins import Migrations, Permission, hookimpl
from ctms.settings import Settings
from ctms.testing.plugins import points_of
from ctms.testing.servers import empty_database

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
    """Makes apps with plugins on that database, and with changes of its settings."""
    made = []

    def make(*plugins: object, **changes: Any) -> Flask:
        app = create_app(replace(own_settings, **changes), points_of(plugins))
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
