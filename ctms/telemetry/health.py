"""Health checks, as `/__heartbeat__` and `/__version__` tell them (Dockerflow)."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
from dockerflow.version import get_version

from ctms.database import CHECK_TIMEOUT_IN_SECONDS, head, quick_connection

LEVELS = ("ok", "warning", "error")


def version() -> dict[str, Any]:
    """Return `version.json` of the working folder (as the container build writes it), or the package's version."""
    found = get_version(str(Path.cwd()))
    return dict(found) if found else {"version": metadata.version("ctms"), "source": "", "commit": "", "build": ""}


def heartbeat() -> dict[str, Any]:
    """Return `status`, `checks` (name: level) and `details` (name: what is wrong), Dockerflow's shape."""
    checks: dict[str, str] = {}
    details: dict[str, Any] = {}
    for name, check in (("database", check_database), ("migrations", check_migrations)):
        problem = check()
        checks[name] = problem[0] if problem else "ok"
        if problem:
            details[name] = {"status": problem[0], "message": problem[1]}
    return {"status": max(checks.values(), key=LEVELS.index), "checks": checks, "details": details}


def check_database() -> tuple[str, str] | None:
    """Answer a query within `CHECK_TIMEOUT_IN_SECONDS`."""
    try:
        with quick_connection() as connection:
            connection.execute("SELECT 1")
    except psycopg.Error:
        return "error", f"the database does not answer within {CHECK_TIMEOUT_IN_SECONDS} s"
    return None


def check_migrations() -> tuple[str, str] | None:
    """Compare the schema's revision with the newest one."""
    try:
        with quick_connection() as connection:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.Error:
        return "error", "the schema's revision cannot be read"
    if row is None or row[0] != head():
        return "error", "the schema is not at the newest revision: run `flask db upgrade`"
    return None
