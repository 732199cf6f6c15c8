"""What every test may use: the fixtures that plugin authors have, and the service as its users start it."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from ctms.database.engine import db
from ctms.suppression.fingerprints import Fingerprints
from ctms.testing.apps import Apps
from ctms.testing.fixtures import SECRET_KEY
from ctms.testing.plugins import bundled
from ctms.testing.servers import empty_database, folder_of_run, let_server_enter, process_name
from tests.serving import Served, serve_as_is

pytest_plugins = ["ctms.testing.fixtures", "tests.hooks.monitor", "tests.leaks", "tests.plugin_databases"]

__all__ = ["SECRET_KEY", "empty_database"]

# How long an example takes says something of the machine, and nothing of the code.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

if "PYTEST_XDIST_WORKER" not in os.environ:
    # Every pytest run closes the folder of all runs to other users, and as root the embedded server is one: two runs
    # at once would take each other's database away. So each has a folder of its own.
    # Its name is short: a unix socket's path has at most 107 characters.
    _folder = Path(tempfile.gettempdir(), f"c{os.getpid()}")
    _folder.mkdir(exist_ok=True)
    os.environ["PYTEST_DEBUG_TEMPROOT"] = str(_folder)
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background so, and every process that a test interrupts would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long tests begin first; all else stays as it was shuffled."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    """pytest's, whose folders, those of `tmp_path` included, the embedded server can reach also as root."""
    make = tmp_path_factory.mktemp

    def mktemp(basename: str, numbered: bool = True) -> Path:
        folder = make(basename, numbered)
        let_server_enter(folder)
        return folder

    tmp_path_factory.mktemp = mktemp  # type: ignore[method-assign]
    return tmp_path_factory


@pytest.fixture(scope="session")
def shared_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this test run."""
    return folder_of_run(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="session")
def worker_id(pytestconfig: pytest.Config) -> str:
    """The name of this test process, also without pytest-xdist."""
    return process_name(pytestconfig)


@pytest.fixture(scope="session")
def migrated_app(apps: Apps) -> Flask:
    """The app with the bundled plugins, on a database that the migrations made; nothing is rolled back."""
    return apps.get(bundled())


@pytest.fixture
def erasure_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app has a key for the fingerprints of addresses."""
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key for tests only"))


@pytest.fixture
def nothing_erased(app: Flask) -> None:  # noqa: ARG001  inside the app's transaction
    """No erasure and no suppression are there, whatever tests with transactions of their own left."""
    for table in ("erasures", "suppressions"):
        db.session.execute(text(f"DELETE FROM {table}"))
    db.session.commit()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service as a user starts it: `flask ctms serve` on an embedded database of its own."""
    with serve_as_is(tmp_path_factory.mktemp("served"), CTMS_WORKERS="2") as running:
        yield running
