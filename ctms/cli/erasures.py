"""`flask ctms erasures …`: what was deleted, by whom, and how far other systems are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from ctms import pool
from ctms.cli.output import json_option, names, say, write_json, write_record, write_table
from ctms.cli.suppressions import address_argument
from ctms.erasure import records
from ctms.erasure.handlers import handlers
from ctms.errors import NotFoundError

erasures = AppGroup(
    "erasures", help="Erasures: what was deleted, by whom, and how far the deletion handlers are. They name no person."
)

id_argument = click.argument("erasure_id", type=click.UUID, metavar="ID")

COLUMNS = ("id", "requested_at", "requested_by", "origin", "forget", "contacts", "unknown", "status")
OF_HANDLERS = ("name", "pending", "done", "verified", "parked", "reason", "started_at", "changed_at")


@erasures.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="So many at the most.")
@click.option("--unfinished", is_flag=True, help="Only those of which something is pending or parked.")
@json_option
def list_erasures(limit: int, unfinished: bool, as_json: bool) -> None:
    """List the erasures, the newest first."""
    with pool.reading() as connection:
        found = records.newest(connection, limit, unfinished=unfinished)
    if as_json:
        write_json(found)
    else:
        _write(COLUMNS, found)


@erasures.command("show")
@id_argument
@json_option
def show_erasure(erasure_id: UUID, as_json: bool) -> None:
    """Show the erasure ID, and how far each deletion handler is. Exits with 4 when there is no such erasure."""
    with pool.reading() as connection:
        found = records.find(connection, erasure_id)
    if found is None:
        raise _unknown(erasure_id)
    if as_json:
        write_json(found)
        return
    write_record({name: _read(name, found[name]) for name in COLUMNS})
    if found["handlers"]:
        click.echo()
        _write(OF_HANDLERS, found["handlers"])


@erasures.command("find")
@address_argument
@json_option
def find_erasures(address: str, as_json: bool) -> None:
    """Say whether ADDRESS was erased, when and by whom, in any spelling.

    It is known of contacts' own addresses and those of their accounts. Exits with 4 when it was not erased, or before
    there was CTMS_ERASURE_KEY or with another one.
    """
    with pool.reading() as connection:
        found = records.of_address(connection, address)
    if not found:
        raise NotFoundError("no erasure of this address is known")
    if as_json:
        write_json(found)
    else:
        _write(COLUMNS, found)


@erasures.command("retry")
@id_argument
@json_option
def retry_erasure(erasure_id: UUID, as_json: bool) -> None:
    """Let deletion handlers try again what they refused of the erasure ID.

    It is no error when nothing is parked. Exits with 4 when there is no such erasure.
    """
    with pool.lend() as connection, connection.transaction():
        if records.find(connection, erasure_id) is None:
            raise _unknown(erasure_id)
        again = records.retry(connection, erasure_id)
    if as_json:
        write_json({"id": str(erasure_id), "again": again})
    for name, number in again.items():
        say(f"{name}: {number:,} to be tried again")
    if not again:
        say("nothing is parked")
    missing = [name for name in again if name not in handlers().by_name]
    if missing:
        say(f"no plugin brings the deletion handler {names(missing)}: what it has to do waits until one does")


def _unknown(erasure_id: UUID) -> NotFoundError:
    return NotFoundError(f"there is no erasure {erasure_id}")


def _write(columns: tuple[str, ...], found: Iterable[Mapping[str, Any]]) -> None:
    write_table(columns, ([_read(name, one[name]) for name in columns] for one in found))


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name.endswith("_at") and value is not None else value
