"""A database with committed contacts: the processes of an import have connections of their own."""

from __future__ import annotations

import pytest
from flask import Flask

from ctms.settings import Settings
from ctms.testing.commands import CommandRunner
from ctms.testing.fixtures import SECRET_KEY
from ctms.testing.servers import empty_database
from tests.export.conftest import _export_app, app, connection, people

__all__ = ["_export_app", "app", "connection", "people"]


@pytest.fixture(scope="session")
def export_settings(postgres: str, worker_id: str) -> Settings:
    """Settings with a database of its own."""
    url = empty_database(postgres, f"imports_{worker_id}")
    return Settings(db_url=url, secret_key=SECRET_KEY, use_mozlog=False)


@pytest.fixture
def cli(app: Flask) -> CommandRunner:
    """A runner of commands."""
    return CommandRunner(app)
