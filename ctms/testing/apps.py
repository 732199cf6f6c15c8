"""The apps of a test process: one for each set of plugins, all with one database."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import cast
from unittest.mock import patch

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from ctms.app import create_app
from ctms.database import engine, migrations, pool
from ctms.settings import Settings

_OF_PLUGINS = "CTMS_PLUGIN_"


class Apps:
    """Creates apps, and caches them for tests with the same plugins."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: dict[object, Flask] = {}
        self._engines: dict[object, Engine] = {}

    def get(self, points: Sequence[EntryPoint], environment: Mapping[str, str] | None = None) -> Flask:
        """Return the app with these plugins, whose settings are the variables `CTMS_PLUGIN_…` of `environment` only.

        The migrations of CTMS and of the app's plugins have run. Raises `PluginError` as the service does.
        """
        variables = dict(environment or {})
        # Two plugins passed as objects are equal only if they are the same object.
        key = (
            tuple((point.name, point.value, id(vars(point).get("plugin"))) for point in points),
            tuple(sorted(variables.items())),
        )
        if key not in self._made:
            with _environment_of_plugins(variables):
                app = create_app(self._settings, points)
            with app.app_context():
                if self._made:
                    migrations.upgrade_plugins()
                else:
                    migrations.upgrade()
                self._engines[key] = engine.db.engine
            self._made[key] = app
        for other, unused in self._engines.items():
            # Idle connections of many cached apps would exceed the limit of a server.
            if other != key and unused.pool.checkedin() and not unused.pool.checkedout():  # type: ignore[attr-defined]  # QueuePool
                unused.dispose()
        return self._made[key]

    def release(self) -> None:
        """Close the connections of all apps."""
        for app in self._made.values():
            engine.release_database(app)


@contextmanager
def _environment_of_plugins(variables: Mapping[str, str]) -> Iterator[None]:
    others = {name: value for name, value in os.environ.items() if not name.startswith(_OF_PLUGINS)}
    with patch.dict(os.environ, {**others, **variables}, clear=True):
        yield


@contextmanager
def rolled_back(app: Flask) -> Iterator[Flask]:
    """Run the app inside a transaction that is rolled back: requests, commands and sessions are savepoints in it."""
    with pytest.MonkeyPatch.context() as patches, app.app_context(), engine.db.engine.connect() as connection:
        # psycopg begins the transaction now. The pause between two requests of a test may exceed the timeout within
        # one.
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        one = cast(pool.Connection, connection.connection.driver_connection)

        @contextmanager
        def savepoint() -> Iterator[object]:
            with one.transaction():
                yield one
            # It would last until the end of the test's transaction, in which a test may use SQL of its own.
            one.pgconn.exec_(b"SELECT set_config('ctms.stamps', '', true)")

        patches.setattr(pool, "acquire", savepoint)
        patches.setitem(engine.db.engines, None, connection)
        try:
            yield app
        finally:
            engine.db.session.remove()
            connection.rollback()
