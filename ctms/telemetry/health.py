"""Health checks for `/__heartbeat__`, and the version for `/__version__` (Dockerflow)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import psycopg
from dockerflow.version import get_version
from flask import Flask

from ctms.current import extension
from ctms.database.compatibility import TableState, read_state
from ctms.database.engine import CHECK_TIMEOUT_IN_SECONDS, quick_connection
from ctms.database.migrations import head, is_known, plugin_schemas
from ctms.database.plugin_failures import failure_of
from ctms.database.pool import Connection
from ctms.errors import PluginError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import HealthCheck
from ctms.settings import Settings
from ctms.suppression.fingerprints import KEY_MISSING
from ctms.sync import known_receivers, receiver_states
from ctms.threads import start_in_thread

logger = logging.getLogger(__name__)

T = TypeVar("T")

LEVELS = ("ok", "warning", "error")
BUILT_IN_CHECKS = ("database", "migrations", "receivers", "erasure_key")

Problem = tuple[str, str] | None
"""A level and a message, or None."""

_UNREADABLE: Problem = ("error", "the schema's revision cannot be read")


def read_version() -> dict[str, Any]:
    """Return `version.json` of the working directory (written by the container build), or the package's version."""
    found = get_version(str(Path.cwd()))
    return dict(found) if found else {"version": metadata.version("ctms"), "source": "", "commit": "", "build": ""}


def run_health_checks() -> dict[str, Any]:
    """Return `status`, `checks` (level by name) and `details` (problem by name), in Dockerflow's shape.

    All checks run concurrently: it takes as long as the slowest check, and none exceeds its timeout.
    """
    checks: dict[str, str] = {}
    details: dict[str, Any] = {}
    built_in: BuiltInChecks = extension("ctms.health.built_in")
    plugins: PluginChecks = extension("ctms.health.plugins")
    run = built_in.start()
    plugin_problems = plugins.run()
    for name, problem in {**built_in.wait_for_problems(run), **plugin_problems}.items():
        checks[name] = problem[0] if problem else "ok"
        if problem:
            details[name] = {"status": problem[0], "message": problem[1]}
    return {"status": max(checks.values(), key=LEVELS.index), "checks": checks, "details": details}


def find_problems() -> list[str]:
    """Run the checks of plugins; return their problems, each with the name of the check."""
    plugins: PluginChecks = extension("ctms.health.plugins")
    return [f"{name}: {problem[1]}" for name, problem in sorted(plugins.run().items()) if problem]


@dataclass(frozen=True)
class _Run(Generic[T]):
    """A started check, with its start time and its future result."""

    started: float
    result: Future[T]

    def wait(self, timeout: float) -> bool:
        """Wait until the timeout, counted from the start of the check; return whether it is done."""
        wait([self.result], timeout=max(0.0, self.started + timeout - time.monotonic()))
        return self.result.done()


class _ThreadedCheck(Generic[T]):
    """A check that runs in a thread, and is not started again while it hangs."""

    def __init__(self, name: str, check: Callable[[], T]) -> None:
        self._name = name
        self._check = check
        self._run: _Run[T] | None = None
        self._lock = Lock()

    def start(self) -> _Run[T]:
        with self._lock:
            if self._run is None or self._run.result.done():
                self._run = _Run(time.monotonic(), start_in_thread(self._check, f"health check {self._name}"))
            return self._run


class PluginChecks:
    """The health checks of plugins. They run in an app context, so that they can read the app's database."""

    def __init__(self, app: Flask, registered: Sequence[Registered[HealthCheck]]) -> None:
        self._app = app
        self._checks = [(one, _ThreadedCheck(one.value.name, partial(self._run, one.value))) for one in registered]

    def _run(self, check: HealthCheck) -> str | None:
        with self._app.app_context():
            return check.check()

    def run(self) -> dict[str, Problem]:
        """Run all checks concurrently; return their problems by name, at most warnings."""
        runs = [(one, check.start()) for one, check in self._checks]
        return {one.value.name: _problem(one, run) for one, run in runs}


def _problem(one: Registered[HealthCheck], run: _Run[str | None]) -> Problem:
    check = one.value
    if not run.wait(check.timeout):
        return "warning", f"no answer within {check.timeout:g} s"
    error = run.result.exception()
    if error is not None:
        logger.error("health check %s of plugin %s failed", check.name, one.plugin.name, exc_info=error)
        return "warning", f"the check failed with {failure_of(one.plugin, error)}"
    message = run.result.result()
    if message is None or isinstance(message, str):
        return ("warning", message) if message else None
    return "warning", f"the check returned one {type(message).__name__}, not None or a text"


def init_health(app: Flask, registered: Sequence[Registered[HealthCheck]]) -> None:
    """Register the health checks of the app and its plugins. Raises `PluginError` for the name of a built-in check."""
    for one in registered:
        if one.value.name in BUILT_IN_CHECKS:
            raise PluginError(
                f"{one.plugin.title}: ctms_health_checks yields {one.value.name!r}, a check that the service has:"
                " rename it",
                one.plugin.name,
            )
    app.extensions["ctms.health.built_in"] = BuiltInChecks(app)
    app.extensions["ctms.health.plugins"] = PluginChecks(app, registered)


class BuiltInChecks:
    """The service's own health checks.

    They are errors unless the database responds within `CHECK_TIMEOUT_IN_SECONDS` and its schema is at the newest
    revision, and warnings for backends and deletion handlers in trouble and for a missing `CTMS_ERASURE_KEY`.

    They run in a thread, since resolving the server's address and connecting may each take the whole timeout.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._check = _ThreadedCheck("database", self._check_database)

    def start(self) -> _Run[dict[str, Problem]]:
        """Start the checks; return the run for `wait_for_problems`."""
        return self._check.start()

    def wait_for_problems(self, run: _Run[dict[str, Problem]]) -> dict[str, Problem]:
        """Wait for a run, until its timeout; return the problems by the names of the checks."""
        late: Problem = ("error", f"the database does not answer within {CHECK_TIMEOUT_IN_SECONDS} s")
        problems = run.result.result() if run.wait(CHECK_TIMEOUT_IN_SECONDS) and not run.result.exception() else None
        return {**(problems or {"database": late, "migrations": _UNREADABLE}), **self._check_key()}

    def _check_key(self) -> dict[str, Problem]:
        settings: Settings = self._app.extensions["ctms.settings"]
        return {} if settings.has_erasure_key else {"erasure_key": ("warning", KEY_MISSING)}

    def _check_database(self) -> dict[str, Problem]:
        with self._app.app_context(), quick_connection() as connection:
            connection.execute("SELECT 1")
            try:
                state = read_state(connection)
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                return {"database": None, "migrations": _UNREADABLE}
            migrations = _check_revision(state) or _check_plugin_revisions(connection)
            return {"database": None, "migrations": migrations, **_check_receivers(connection)}


def _check_receivers(connection: Connection) -> dict[str, Problem]:
    has_receivers = any(receiver_states.registered(kind) for kind in receiver_states.HOOKS)
    try:
        troubles = [
            *receiver_states.problems_of_receivers(connection),
            *known_receivers.describe_awaited(connection),
        ]
    except psycopg.Error:
        troubles = ["how backends and deletion handlers are doing cannot be read"] if has_receivers else []
    if troubles:
        return {"receivers": ("warning", "; ".join(troubles))}
    return {"receivers": None} if has_receivers else {}


def _check_plugin_revisions(connection: Connection) -> Problem:
    """Return what the database lacks for plugins: a warning, since the rest of the service works without it."""
    try:
        found = [*plugin_schemas().problems(connection), *plugin_schemas().newer(connection)]
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        found = ["the revisions of plugins cannot be read"]
    return ("warning", "; ".join(found)) if found else None


def _check_revision(state: TableState) -> Problem:
    if state.revision == head():
        return None
    if state.is_compatible(head()):  # during a roll-out and after going back
        return "warning", "the schema is newer than this version, and compatible with it"
    if state.revision is not None and not is_known(state.revision):
        return "error", "the schema is newer than this version, and not compatible with it: start the newer version"
    return "error", "the schema is not at the newest revision: run `flask db upgrade`"
