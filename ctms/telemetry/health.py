"""Health checks, as `/__heartbeat__` and `/__version__` tell them (Dockerflow)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from threading import Lock
from typing import Any

import psycopg
from dockerflow.version import get_version
from flask import Flask, current_app

from ctms.database import CHECK_TIMEOUT_IN_SECONDS, head, is_known, quick_connection
from ctms.errors import PluginError
from ctms.hooks.manager import Registered
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


class ExtensionChecks:
    """The checks of plugins. Each runs in a thread; one that hangs is not started again until it has ended."""

    def __init__(self, registered: Sequence[Registered[HealthCheck]]) -> None:
        self._checks = [one.value for one in registered]
        self._threads = ThreadPoolExecutor(max(1, len(self._checks)), "health") if self._checks else None
        self._running: dict[str, Future[str | None]] = {}
        self._lock = Lock()

    def run(self) -> dict[str, Problem]:
        """Run all at once; returns what is wrong, by the checks' names. Nothing of it is worse than a warning."""
        if self._threads is None:
            return {}
        with self._lock:
            for check in self._checks:
                if check.name not in self._running or self._running[check.name].done():
                    self._running[check.name] = self._threads.submit(check.check)
            running = dict(self._running)
        give_up = time.monotonic()
        return {
            check.name: self._problem(check, running[check.name], give_up + check.timeout) for check in self._checks
        }

    def _problem(self, check: HealthCheck, running: Future[str | None], give_up: float) -> Problem:
        try:
            message = running.result(timeout=max(0.0, give_up - time.monotonic()))
        except TimeoutError:
            return "warning", f"no answer within {check.timeout:g} s"
        except Exception as error:
            logger.exception("health check failed", extra={"check": check.name})
            return "warning", f"the check failed with {type(error).__name__}"
        return ("warning", message) if message else None


def init_health(app: Flask, registered: Sequence[Registered[HealthCheck]]) -> None:
    """Give the app the checks of its plugins. Raises `PluginError` where a name is one of ours."""
    for one in registered:
        if one.value.name in OWN_CHECKS:
            raise PluginError(f"{one.plugin.title}: the health check {one.value.name!r} is ours: rename it")
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
