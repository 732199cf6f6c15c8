"""`flask ctms audit`, and the entries that other commands add to the log."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import with_appcontext

from ctms.cli import values
from ctms.cli.actor import OPERATOR, current_actor
from ctms.cli.output import cell_text, json_option, names, say, write_json, write_table
from ctms.database import pool
from ctms.database.engine import session_connection
from ctms.database.pool import Connection
from ctms.history.audit import AdministrativeAct, AuditFilter, find_acts, record_act


def record(target: str | None, *, on: Connection | None = None, **details: Any) -> None:
    """Add the running command to the audit log, in the transaction of `on` (None: of the session).

    `details` have neither personal data nor secrets. A command that commits in batches adds its entry before the first.
    """
    record_act(on or session_connection(), current_actor(), _current_command(), target, **details)


def _current_command() -> str:
    """Return the path of the running command below `flask ctms`, such as `clients create`."""
    context: click.Context | None = click.get_current_context()
    found: list[str] = []
    while context is not None and context.command.name != "ctms":
        found.insert(0, context.command.name or "")
        context = context.parent
    return " ".join(found)


def _actor(value: str) -> str:
    """Parse an actor; a login is that of an operator."""
    text = values.stored_text(value)
    return text if ":" in text else f"{OPERATOR}{text}"


@click.command("audit")
@click.option("--by", "actor", type=_actor, metavar="LOGIN", help="Only acts of this operator.")
@click.option(
    "--action", type=values.stored_text, metavar="COMMAND", help="Only this command or group: 'clients', 'roles grant'."
)
@click.option("--target", type=values.stored_text, metavar="NAME", help="Only acts on this client, role, backend, ….")
@click.option("--since", type=values.moment, metavar="TIME", help="Only acts since then: a time, or 2h, 7d.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Maximum number.")
@json_option
@with_appcontext
def audit(limit: int, as_json: bool, **selected: Any) -> None:
    """Show the audit log, newest first: who ran which administrative command, on what, and when.

    Each command that changes clients, roles, permissions, backends, suppressions, erasures, contacts or the data of
    plugins adds an entry. Entries cannot be changed or deleted, and have no personal data. Use --json for all details.
    """
    with pool.reading() as connection:
        found = find_acts(connection, AuditFilter(**selected), limit)
    if as_json:
        write_json([one._asdict() for one in found])
    else:
        if not found:
            say("no entry matches")
        write_table(AdministrativeAct._fields, ((*one[:-1], _shown(one.details)) for one in found))


def _shown(details: dict[str, Any]) -> str:
    return names(f"{name}={cell_text(value)}" for name, value in details.items())
