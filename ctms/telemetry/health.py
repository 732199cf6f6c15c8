"""Health checks, as `/__heartbeat__` and `/__version__` tell them (Dockerflow)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import psycopg
from dockerflow.version import get_version
from flask import Flask, current_app

from ctms.database import CHECK_TIMEOUT_IN_SECONDS, head, is_known, quick_connection
from ctms.errors import PluginError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import HealthCheck

logger = logging.getLogger(__name__)

LEVELS = ("ok", "warning", "error")
OWN_CHECKS = ("database", "migrations")

Problem = tuple[str, str] | None
"""A level and what is wrong, or None."""


def version() -> dict[str, Any]:
    """Return `version.json` of the working folder (as the container build writes it), or the package's version."""
    found = get_version(str(Path.cwd()))
    return dict(found) if found else {"version": metadata.version("ctms"), "source": "", "commit": "", "build": ""}


def heartbeat() -> dict[str, Any]:
    """Return `status`, `checks` (name: level) and `details` (name: what is wrong), Dockerflow's shape."""
    checks: dict[str, str] = {}
    details: dict[str, Any] = {}
    extensions: ExtensionChecks = current_app.extensions["ctms.health"]
    found = {"database": check_database(), "migrations": check_migrations(), **extensions.run()}
    for name, problem in found.items():
        checks[name] = problem[0] if problem else "ok"
        if problem:
            details[name] = {"status": problem[0], "message": problem[1]}
    return {"status": max(checks.values(), key=LEVELS.index), "checks": checks, "details": details}


@dataclass(frozen=True)
class _Run:
    """A check that was started, and when."""

    started: float
    answer: Future[str | None]


class ExtensionChecks:
    """The checks of plugins. Each runs in a thread; one that hangs is not started again until it has ended."""

    def __init__(self, registered: Sequence[Registered[HealthCheck]]) -> None:
        self._registered = registered
        self._runs: dict[str, _Run] = {}
        self._lock = Lock()

    def run(self) -> dict[str, Problem]:
        """Run all at once; returns what is wrong, by the checks' names. Nothing of it is worse than a warning."""
        with self._lock:
            for one in self._registered:
                name = one.value.name
                if name not in self._runs or self._runs[name].answer.done():
                    self._runs[name] = _start(one.value)
            runs = dict(self._runs)
        return {one.value.name: _problem(one, runs[one.value.name]) for one in self._registered}


def _start(check: HealthCheck) -> _Run:
    answer: Future[str | None] = Future()

    def work() -> None:
        try:
            answer.set_result(check.check())
        except BaseException as error:  # noqa: BLE001  whoever waits for the answer is told
            answer.set_exception(error)

    # Not of a pool: its threads would be waited for at the end of the process, hanging ones for ever.
    Thread(target=work, name=f"health check {check.name}", daemon=True).start()
    return _Run(time.monotonic(), answer)


def _problem(one: Registered[HealthCheck], run: _Run) -> Problem:
    """Wait for the answer until the check's time is up, counted from its start."""
    check = one.value
    wait([run.answer], timeout=max(0.0, run.started + check.timeout - time.monotonic()))
    if not run.answer.done():
        return "warning", f"no answer within {check.timeout:g} s"
    error = run.answer.exception()
    if error is not None:
        logger.error("health check %s of plugin %s failed", check.name, one.plugin.name, exc_info=error)
        return "warning", f"the check failed with {type(error).__name__}"
    message = run.answer.result()
    if message is None or isinstance(message, str):
        return ("warning", message) if message else None
    return "warning", f"the check returned one {type(message).__name__}, not None or a text"


def init_health(app: Flask, registered: Sequence[Registered[HealthCheck]]) -> None:
    """Give the app the checks of its plugins. Raises `PluginError` where a name is one of ours."""
    for one in registered:
        if one.value.name in OWN_CHECKS:
            raise PluginError(
                f"{one.plugin.title}: ctms_health_checks yields {one.value.name!r}, a check that the service has:"
                " rename it",
                one.plugin.name,
            )
    app.extensions["ctms.health"] = ExtensionChecks(registered)


def check_database() -> Problem:
    """Answer a query within `CHECK_TIMEOUT_IN_SECONDS`."""
    try:
        with quick_connection() as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return "error", f"the database does not answer within {CHECK_TIMEOUT_IN_SECONDS} s"
    return None


def check_migrations() -> Problem:
    """Compare the schema's revision with the newest one."""
    try:
        with quick_connection() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error:
        return "error", "the schema's revision cannot be read"
    current = row[0] if row else None
    if current == head():
        return None
    if current is not None and not is_known(current):
        # While a newer version is rolled out its schema is there first; migrations keep the older one working.
        return "warning", "the schema is newer than this version"
    return "error", "the schema is not at the newest revision: run `flask db upgrade`"
