"""Lists to import, and running the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import Result

from ctms.database.pool import Connection
from ctms.testing.commands import CommandRunner
from tests.export.conftest import documents

WEEKLY = """
email.primary_email = "Email"
email.first_name = "Name"
newsletters.weekly = "Weekly"
"""
EVENTS = "SELECT count(*) FROM subscription_events"
_TIMES = {"create_timestamp", "update_timestamp"}


def run_import(cli: CommandRunner, *arguments: str | Path, status: int = 0) -> Result:
    """Run the command, and check its exit status."""
    result = cli.ctms("import", *map(str, arguments))
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def counts(result: Result) -> dict[str, Any]:
    """Return the numbers of a summary in JSON that are not zero."""
    found = json.loads(result.stdout)
    return {name: value for name, value in found.items() if value and name not in {"seconds", "stopped", "dry_run"}}


def write(path: Path, text: str) -> Path:
    """Write a file; return its path."""
    path.write_text(text)
    return path


def without(found: Any, names: set[str] = _TIMES) -> Any:
    """Return JSON without members of these names, anywhere."""
    if isinstance(found, dict):
        return {name: without(value, names) for name, value in found.items() if name not in names}
    return [without(value, names) for value in found] if isinstance(found, list) else found


def stored(connection: Connection) -> dict[str, Any]:
    """Return the contacts by address, without ids and times."""
    found = documents(connection).values()
    return {one["email"]["primary_email"]: without(one, {*_TIMES, "email_id"}) for one in found}


def scalar(connection: Connection, query: str) -> Any:
    """Return a single value."""
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]
