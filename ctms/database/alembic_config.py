"""The configuration of Alembic for the migrations of CTMS and of plugins.

Import this module, Alembic and Flask-Migrate where they are used: a serving process starts without them, in about five
sixths of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import alembic.command
import flask_migrate
from alembic.config import Config
from flask_migrate import Migrate

from ctms.current import current_app
from ctms.database.engine import db
from ctms.database.plugin_migrations import PluginMigrations
from ctms.database.revisions import Revisions
from ctms.paths import MIGRATIONS

migrate = Migrate()

_chosen: ContextVar[PluginMigrations | None] = ContextVar("the plugin whose migrations Alembic works on", default=None)


def init_flask_migrate() -> None:
    """Set up Flask-Migrate in the current app, unless it is: its commands and functions require that."""
    if "migrate" not in current_app().extensions:
        migrate.init_app(current_app(), db, directory=str(MIGRATIONS))


@contextmanager
def chosen(plugin: PluginMigrations) -> Iterator[None]:
    """Let Alembic work on the migrations of a plugin in the block."""
    init_flask_migrate()
    token = _chosen.set(plugin)
    try:
        yield
    finally:
        _chosen.reset(token)


def upgrade_own_tables(**options: Any) -> None:
    """Run the migrations of CTMS; `options` are those of Flask-Migrate."""
    init_flask_migrate()
    flask_migrate.upgrade(**{"directory": str(MIGRATIONS), **options})


def upgrade_tables_of(plugin: PluginMigrations) -> None:
    """Run the migrations of a plugin."""
    with chosen(plugin):
        alembic.command.upgrade(migrate.get_config(str(MIGRATIONS)), "head")


@migrate.configure  # type: ignore[untyped-decorator]
def _configure(config: Config) -> Config:
    """Configure Alembic's migrations; `migrations/env.py` reads the attributes."""
    plugin = _chosen.get()
    if plugin is not None:
        for name in ("path_separator", "version_path_separator"):  # earlier versions use the second one
            config.set_main_option(name, "os")
        config.set_main_option("version_locations", str(plugin.folder).replace("%", "%%"))
    config.attributes["revisions"] = (
        Revisions(MIGRATIONS / "versions") if plugin is None else Revisions(plugin.folder, plugin.plugin)
    )
    return config
