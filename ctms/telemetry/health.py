"""Health checks, as `/__heartbeat__` and `/__version__` tell them (Dockerflow)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

import psycopg
from dockerflow.version import get_version
from flask import Flask

from ctms.current import extension
from ctms.database import CHECK_TIMEOUT_IN_SECONDS, head, is_known, quick_connection
from ctms.errors import PluginError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import HealthCheck
from ctms.outbox import receivers
from ctms.pool import Connection
from ctms.settings import Settings
from ctms.suppression.fingerprints import KEY_MISSING

logger = logging.getLogger(__name__)

T = TypeVar("T")

LEVELS = ("ok", "warning", "error")
OWN_CHECKS = ("database", "migrations", "receivers", "erasure_key")

Problem = tuple[str, str] | None
"""A level and what is wrong, or None."""

_UNREAD: Problem = ("error", "the schema's revision cannot be read")


def version() -> dict[str, Any]:
    """Return `version.json` of the working folder (as the container build writes it), or the package's version."""
    found = get_version(str(Path.cwd()))
    return dict(found) if found else {"version": metadata.version("ctms"), "source": "", "commit": "", "build": ""}


def heartbeat() -> dict[str, Any]:
    """Return `status`, `checks` (name: level) and `details` (name: what is wrong), Dockerflow's shape.

    All checks run at once: it takes as long as the slowest, and none longer than its time-out.
    """
    checks: dict[str, str] = {}
    details: dict[str, Any] = {}
    own: OwnChecks = extension("ctms.health.own")
    extensions: ExtensionChecks = extension("ctms.health")
    begun = own.start()
    further = extensions.run()
    for name, problem in {**own.found(begun), **further}.items():
        checks[name] = problem[0] if problem else "ok"
        if problem:
            details[name] = {"status": problem[0], "message": problem[1]}
    return {"status": max(checks.values(), key=LEVELS.index), "checks": checks, "details": details}


def find_problems() -> list[str]:
    """Run the checks of plugins and return what is wrong, each with the check's name: for who starts the service."""
    extensions: ExtensionChecks = extension("ctms.health")
    return [f"{name}: {problem[1]}" for name, problem in sorted(extensions.run().items()) if problem]


@dataclass(frozen=True)
class _Run(Generic[T]):
    """A check that was started, and when."""

    started: float
    answer: Future[T]

    def wait(self, timeout: float) -> bool:
        """Wait until the check's time is up, counted from its start; returns whether it has answered."""
        wait([self.answer], timeout=max(0.0, self.started + timeout - time.monotonic()))
        return self.answer.done()


class _Threaded(Generic[T]):
    """A check that runs in a thread; one that hangs is not started again until it has ended."""

    def __init__(self, name: str, check: Callable[[], T]) -> None:
        self._name = name
        self._check = check
        self._run: _Run[T] | None = None
        self._lock = Lock()

    def start(self) -> _Run[T]:
        with self._lock:
            if self._run is None or self._run.answer.done():
                answer: Future[T] = Future()
                # Not of a pool: its threads would be waited for at the end of the process, hanging ones for ever.
                thread = Thread(target=self._work, args=(answer,), name=f"health check {self._name}", daemon=True)
                self._run = _Run(time.monotonic(), answer)
                thread.start()
            return self._run

    def _work(self, answer: Future[T]) -> None:
        try:
            answer.set_result(self._check())
        except BaseException as error:  # noqa: BLE001  whoever waits for the answer is told
            answer.set_exception(error)


class ExtensionChecks:
    """The checks of plugins."""

    def __init__(self, registered: Sequence[Registered[HealthCheck]]) -> None:
        self._checks = [(one, _Threaded(one.value.name, one.value.check)) for one in registered]

    def run(self) -> dict[str, Problem]:
        """Run all at once; returns what is wrong, by the checks' names. Nothing of it is worse than a warning."""
        runs = [(one, check.start()) for one, check in self._checks]
        return {one.value.name: _problem(one, run) for one, run in runs}


def _problem(one: Registered[HealthCheck], run: _Run[str | None]) -> Problem:
    check = one.value
    if not run.wait(check.timeout):
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
    app.extensions["ctms.health.own"] = OwnChecks(app)
    app.extensions["ctms.health"] = ExtensionChecks(registered)


class OwnChecks:
    """What requests need: a database that answers within `CHECK_TIMEOUT_IN_SECONDS`, its schema at the newest revision.

    Where there are backends or deletion handlers, also how those are doing; and whether `CTMS_ERASURE_KEY` is missing.
    Neither is worse than a warning.

    In a thread, since to find the server's address and to connect may each take as long as they are allowed to.
    """

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._check = _Threaded("database", self._ask)

    def start(self) -> _Run[dict[str, Problem]]:
        """Begin to check; returns what `found` waits for."""
        return self._check.start()

    def found(self, run: _Run[dict[str, Problem]]) -> dict[str, Problem]:
        """Return what is wrong, by the checks' names."""
        late: Problem = ("error", f"the database does not answer within {CHECK_TIMEOUT_IN_SECONDS} s")
        found = run.answer.result() if run.wait(CHECK_TIMEOUT_IN_SECONDS) and not run.answer.exception() else None
        return {**(found or {"database": late, "migrations": _UNREAD}), **self._key()}

    def _key(self) -> dict[str, Problem]:
        settings: Settings = self._app.extensions["ctms.settings"]
        return {} if settings.has_erasure_key else {"erasure_key": ("warning", KEY_MISSING)}

    def _ask(self) -> dict[str, Problem]:
        with self._app.app_context(), quick_connection() as connection:
            connection.execute("SELECT 1")
            try:
                row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                return {"database": None, "migrations": _UNREAD}
            return {"database": None, "migrations": _behind(row[0] if row else None), **_receivers(connection)}


def _receivers(connection: Connection) -> dict[str, Problem]:
    if not any(receivers.registered(kind) for kind in receivers.HOOKS):
        return {}
    try:
        found = receivers.troubles(connection)
    except psycopg.Error:
        return {"receivers": ("warning", "how backends and deletion handlers are doing cannot be read")}
    return {"receivers": ("warning", "; ".join(found)) if found else None}


def _behind(current: str | None) -> Problem:
    if current == head():
        return None
    if current is not None and not is_known(current):
        # While a newer version is rolled out its schema is there first; migrations keep the older one working.
        return "warning", "the schema is newer than this version"
    return "error", "the schema is not at the newest revision: run `flask db upgrade`"
