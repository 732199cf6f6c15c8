"""`flask ctms erasures …`: records of deletions, and their progress in other systems."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from ctms.cli import values
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.output import confirm, json_option, say, write_done, write_json, write_record, write_table, yes_option
from ctms.cli.progress import counting
from ctms.cli.receivers import find, kind_option
from ctms.cli.suppressions import address_argument
from ctms.database import pool
from ctms.erasure import records
from ctms.errors import NotFoundError
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.sync.receiver_states import WORDS
from ctms.words import counted

erasures = AppGroup(
    "erasures",
    help="Erasures: what was deleted, by whom, progress of deletion handlers and backends. Without personal data.",
)

id_argument = click.argument("erasure_id", type=click.UUID, metavar="ID")

COLUMNS = ("id", "requested_at", "requested_by", "origin", "forget", "contacts", "unknown", "status")
SHOWN = (*COLUMNS, "also_known_in", "follows")
PROGRESS = ("parked", "reason", "started_at", "changed_at")
OF_HANDLERS = ("deletion handler", "installed", "pending", "done", "verified", *PROGRESS)
OF_BACKENDS = ("backend", "installed", "pending", "done", *PROGRESS)


@erasures.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Maximum number.")
@click.option(
    "--unfinished",
    is_flag=True,
    help="Only those that are not done: a handler or backend has not finished, or not verified them yet.",
)
@json_option
def list_erasures(limit: int, unfinished: bool, as_json: bool) -> None:
    """List the erasures, newest first."""
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
    """Show the erasure ID, and the progress of each deletion handler and backend.

    The status is `done` when nothing is left to do, also for the earlier erasures of the same addresses in `follows`.
    Exits with 4 if there is no such erasure.
    """
    with pool.reading() as connection:
        found = records.find(connection, erasure_id)
    if found is None:
        raise _unknown(erasure_id)
    if as_json:
        write_json(found)
        return
    write_record({name: _read(name, found[name]) for name in SHOWN})
    for kind, columns in (("handlers", OF_HANDLERS), ("backends", OF_BACKENDS)):
        if found[kind]:
            click.echo()
            _write(columns, ({**one, columns[0]: one["name"]} for one in found[kind]))
    _warn_of_missing(found)


@erasures.command("find")
@address_argument
@json_option
def find_erasures(addresses: Sequence[str], as_json: bool) -> None:
    """Show whether ADDRESS was erased, in any spelling, when and by whom.

    Finds contacts' own addresses and account addresses. Exits with 4 if it was not erased, or was erased without
    CTMS_ERASURE_KEY or with another key.
    """
    with pool.reading() as connection:
        found = next(filter(None, (records.of_address(connection, address) for address in addresses)), None)
    if not found:
        raise NotFoundError("no erasure of this address is known")
    if as_json:
        write_json(found)
    else:
        _write(COLUMNS, found)


@erasures.command("retry")
@click.argument("erasure_id", type=click.UUID, required=False, metavar="[ID]")
@click.option("--handler", type=values.stored_text, metavar="NAME", help="With --all: a deletion handler.")
@click.option("--all", "everything", is_flag=True, help="With --handler: what it refused of all erasures.")
@json_option
def retry_erasure(erasure_id: UUID | None, handler: str | None, everything: bool, as_json: bool) -> None:
    """Retry what deletion handlers and backends refused of the erasure ID.

    With --handler NAME --all, retry what the deletion handler NAME refused of all erasures. It can be interrupted
    (Ctrl-C) and repeated. For a backend, use `flask ctms backends retry`.

    It is no error if nothing is parked. Exits with 4 if there is no such erasure or deletion handler, with 3 if it was
    interrupted.
    """
    if erasure_id is not None and handler is None and not everything:
        _retry_erasure(erasure_id, as_json)
    elif erasure_id is None and handler is not None and everything:
        _retry_handler(handler, as_json)
    else:
        raise click.UsageError("name what to retry: either an erasure's ID, or --handler NAME --all")


def _retry_handler(name: str, as_json: bool) -> None:
    with pool.acquire() as connection:
        state = find(connection, HANDLER, name, f"run `flask ctms backends retry {name}`")
        record(name, on=connection)
        with counting("contacts to be tried again") as count:
            number = count(records.retry_handler(connection, name))
    remark = f"{counted(number, 'contact')} to be tried again" if number else "nothing is parked"
    write_done(name, {"handler": name, "retried": number}, remark, as_json)
    if state.max_batch is None:
        say("no enabled plugin provides this deletion handler: they stay pending until one does")


def _retry_erasure(erasure_id: UUID, as_json: bool) -> None:
    with pool.acquire() as connection:
        found = records.find(connection, erasure_id)
        if found is None:
            raise _unknown(erasure_id)
        record(str(erasure_id), on=connection)
        again = records.retry(connection, erasure_id)
    if as_json:
        write_json({"id": str(erasure_id), "again": again.handlers, "backends": again.backends})
    for kind, numbers in ((HANDLER, again.handlers), (BACKEND, again.backends)):
        for name, number in numbers.items():
            say(f"{WORDS[kind]} {name}: {number:,} to be tried again")
    if not any(again):
        say("nothing is parked")
    _warn_of_missing(found)


@erasures.command("close")
@id_argument
@click.argument("name", type=values.stored_text, metavar="NAME")
@kind_option
@yes_option
@json_option
def close_erasure(erasure_id: UUID, name: str, kind: str, yes: bool, as_json: bool) -> None:
    """Count the remaining deletions of the erasure ID at the backend NAME as done.

    For plugins that are no longer installed, after you have deleted the data there manually. The record stores who
    closed it, and the pending work is deleted here. Exits with 4 if there is no such erasure, or NAME has no part in
    it.
    """
    confirm(f"Count everything that the {WORDS[kind]} {name} has yet to do as done manually?", yes)
    with pool.acquire() as connection:
        with connection.transaction():
            closed = records.close(connection, erasure_id, kind, name, current_actor())
            if closed is None:
                raise NotFoundError(f"there is no erasure {erasure_id} with the {WORDS[kind]} {name}")
            if closed:
                record(str(erasure_id), on=connection, kind=kind, name=name)
        found = records.find(connection, erasure_id)
    remark = (
        f"the {WORDS[kind]} {name} counts as done" if closed else f"nothing is left to do for the {WORDS[kind]} {name}"
    )
    write_done(str(erasure_id), found, remark, as_json)


def _warn_of_missing(record: Mapping[str, Any]) -> None:
    """Name the deletion handlers and backends with unfinished work that no plugin provides."""
    for kind, of_kind in ((HANDLER, record["handlers"]), (BACKEND, record["backends"])):
        for one in of_kind:
            if (one["pending"] or one["parked"]) and not one["installed"]:
                say(
                    f"no plugin provides the {WORDS[kind]} {one['name']}: its part waits until one does,"
                    " or until `erasures close`"
                )


def _unknown(erasure_id: UUID) -> NotFoundError:
    return NotFoundError(f"there is no erasure {erasure_id}")


def _write(columns: tuple[str, ...], found: Iterable[Mapping[str, Any]]) -> None:
    write_table(columns, ([_read(name, one[name]) for name in columns] for one in found))


def _read(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name.endswith("_at") and value is not None else value
