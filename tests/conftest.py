"""Fixtures for all tests: those for plugin authors, and the service as its users start it."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from sqlalchemy import text

from ctms.database import engine
from ctms.database.engine import db
from ctms.suppression.fingerprints import Fingerprints
from ctms.telemetry import health
from ctms.testing.apps import Apps
from ctms.testing.fixtures import SECRET_KEY
from ctms.testing.plugins import bundled
from ctms.testing.servers import empty_database, folder_of_run, let_server_enter, process_name
from tests.prepared import FOLDER_OF_RUN
from tests.serving import Served, serve_as_is
from tests.temporary import folder_of_runs

pytest_plugins = ["ctms.testing.fixtures", "tests.hooks.monitor", "tests.leaks", "tests.plugin_databases"]

__all__ = ["SECRET_KEY", "empty_database"]

T = TypeVar("T")

# Thousands of tests and dozens of apps are many objects, in which Python looks for garbage again and again: by default
# during 12 percent of the CPU time of the API's tests, so during 7.
gc.set_threshold(10_000)

# The duration of an example depends on the machine, not on the code.
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# So does how soon the database responds to a health check.
LIMIT_OF_CHECKS = engine.CHECK_TIMEOUT_IN_SECONDS
PATIENCE_OF_CHECKS = 60
for _module in (engine, health):
    vars(_module)["CHECK_TIMEOUT_IN_SECONDS"] = PATIENCE_OF_CHECKS

if "PYTEST_XDIST_WORKER" not in os.environ:
    # pytest makes its temporary folder inaccessible to other users, and as root the embedded server runs as another
    # user: concurrent runs would block each other's database. So each run has its own folder, also for what the
    # service and other programs put into the temporary folder: nothing is left there at the end.
    # Its name is short, because the path of a Unix socket has at most 107 characters.
    _folder = folder_of_runs(os.environ) / f"c{os.getpid()}"
    _folder.mkdir(exist_ok=True)
    os.environ |= {FOLDER_OF_RUN: str(_folder), "TMPDIR": str(_folder)}
    tempfile.tempdir = None  # look again
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Shells start background jobs with SIGINT ignored, and the processes that tests interrupt would inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes after their argument: compressed ones contain the time, and the processes of a run must agree."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long tests first, in all processes of the run; keep the shuffled order of the others."""
    long = [item for item in items if item.get_closest_marker("long")]
    others = [item for item in items if not item.get_closest_marker("long")]
    items[:] = long_first(long, others, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def long_first(long: Sequence[T], others: Sequence[T], processes: int) -> list[T]:
    """Return both in one list, such that equal parts of it, one for each process, begin with as many long ones.

    pytest-xdist gives each process such a part, and later moves tests from the end of one to another.
    """
    total = len(long) + len(others)
    found: list[T] = []
    taken = 0
    for process in range(processes):
        found += long[process::processes]
        end = total * (process + 1) // processes
        wanted = max(taken, taken + end - len(found))
        found += others[taken:wanted]
        taken = wanted
    return found


@pytest.fixture(scope="session")
def tmp_path_factory(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    """pytest's factory, with folders (also those of `tmp_path`) that the embedded server can access as root, too."""
    make = tmp_path_factory.mktemp

    def mktemp(basename: str, numbered: bool = True) -> Path:
        folder = make(basename, numbered)
        let_server_enter(folder)
        return folder

    tmp_path_factory.mktemp = mktemp  # type: ignore[method-assign]
    return tmp_path_factory


@pytest.fixture(scope="session")
def shared_folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder shared by all processes of this test run."""
    return folder_of_run(pytestconfig, tmp_path_factory)


@pytest.fixture(scope="session")
def worker_id(pytestconfig: pytest.Config) -> str:
    """Name of this test process, also without pytest-xdist."""
    return process_name(pytestconfig)


@pytest.fixture(scope="session")
def migrated_app(apps: Apps) -> Flask:
    """The app with the bundled plugins, on a migrated database; nothing is rolled back."""
    return apps.get(bundled())


@pytest.fixture
def erasure_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure a key for the fingerprints of addresses."""
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key for tests only"))


@pytest.fixture
def nothing_erased(app: Flask) -> None:  # noqa: ARG001  inside the app's transaction
    """Delete all erasures and suppressions, including those committed by other tests."""
    for table in ("erasures", "suppressions"):
        db.session.execute(text(f"DELETE FROM {table}"))
    db.session.commit()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service as a user starts it: `flask ctms serve` with its own embedded database."""
    with serve_as_is(tmp_path_factory.mktemp("served"), CTMS_WORKERS="2") as running:
        yield running
