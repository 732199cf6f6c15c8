"""`flask ctms backends …`: the other systems that contacts are synced to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from datetime import datetime
from itertools import chain
from typing import Any, BinaryIO

import click
from flask.cli import AppGroup

from ctms.bulk.columns import ReadOptions
from ctms.cli import values
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.lists import ListReader, column_option
from ctms.cli.output import (
    confirm,
    json_option,
    say,
    write_done,
    write_json,
    write_record,
    write_table,
    yes_option,
)
from ctms.cli.progress import counting
from ctms.cli.receivers import find, find_backend, kind_option, name_argument, shown, unsynchronised
from ctms.contacts.queries import estimate_contacts
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.erasure import records
from ctms.errors import OperatorError, UnfinishedError
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.sync import known_receivers, parked, receiver_states
from ctms.sync import resync as walk
from ctms.sync import verify as comparison
from ctms.sync.receiver_states import WORDS, Status
from ctms.sync.resync import Selection
from ctms.sync.verify import Findings
from ctms.words import counted, pluralize

EXAMPLES = 3
"""Number of ids that are shown as examples."""

backends = AppGroup(
    "backends",
    help="Backends: the other systems that contacts are synced to. State, errors, pause, retry, resync, verify.",
)

_OTHER_KIND = {BACKEND: "pass --deletion-handler", HANDLER: "omit --deletion-handler"}
"""Hint if the name belongs to the other kind."""


@backends.command("list")
@json_option
def list_backends(as_json: bool) -> None:
    """List all backends and deletion handlers, and their states.

    STATE is `ok`; `paused`, by an operator or by the other system; `resting`, while its circuit breaker is open because
    of consecutive failures or a rate limit; `failing`, when the last calls failed; `not installed`, when the database
    knows it, but no plugin here provides it. WAITING counts contacts, RETRYING those among them that were tried before,
    PARKED those that are not retried. LAST ERROR may be old: see its time.

    A remark names each backend that was never synchronised: contacts from before the backend reach it only when they
    change, or by `resync --all`.
    """
    with pool.acquire() as connection:
        found = receiver_states.statuses(connection)
    if as_json:
        write_json([shown(status) for status in found])
    else:
        columns = ("name", "kind", "state", "waiting", "retrying", "parked", "oldest", "last success", "last error")
        write_table(columns, (_row(status) for status in found))
    for status in found:
        if status.never_synchronised:
            say(unsynchronised(status.name))


@backends.command("pause")
@name_argument
@kind_option
@click.option("--why", type=values.stored_text, metavar="TEXT", help="Reason, shown by `list`.")
@json_option
def pause_backend(name: str, kind: str, why: str | None, as_json: bool) -> None:
    """Stop calling the backend NAME, until `resume`.

    The batches in flight are finished; pending and new changes are kept. Exits with 4 if there is no such backend.
    """
    with pool.acquire() as connection:
        before = find(connection, kind, name, _OTHER_KIND[kind])
        with connection.transaction():
            receiver_states.pause(connection, kind, name, why)
            if not before.paused_at:
                record(name, on=connection, kind=kind)
        data = shown(find(connection, kind, name, _OTHER_KIND[kind]))
    write_done(name, data, "already paused" if before.paused_at else "paused", as_json)


@backends.command("resume")
@name_argument
@kind_option
@json_option
def resume_backend(name: str, kind: str, as_json: bool) -> None:
    """Call the backend NAME again: end a pause or a cool-down.

    Contacts that were tried before are due at their own time, within an hour.

    Exits with 4 if there is no such backend.
    """
    with pool.acquire() as connection:
        find(connection, kind, name, _OTHER_KIND[kind])
        with connection.transaction():
            if changed := receiver_states.resume(connection, kind, name):
                record(name, on=connection, kind=kind)
        data = shown(find(connection, kind, name, _OTHER_KIND[kind]))
    write_done(name, data, "resumed" if changed else "it was neither paused nor cooling down", as_json)


@backends.command("forget")
@name_argument
@kind_option
@click.option("--close-erasures", "close", is_flag=True, help="Count what erasures wait for there as done manually.")
@yes_option
@json_option
def forget_backend(name: str, kind: str, close: bool, yes: bool, as_json: bool) -> None:
    """Forget the backend NAME, whose system is no longer used, with its pending changes.

    While the database knows it, commands and scheduled retention runs refuse to change contacts without its plugin.
    Remove the plugin from every process first: each service that starts with it makes it known again. The other system
    keeps what it has.

    Exits with 4 if there is no such backend, and with 1 if a plugin here provides it or erasures wait for it.
    """
    with pool.acquire() as connection:
        find(connection, kind, name, _OTHER_KIND[kind])
        if name in receiver_states.registered(kind):
            raise OperatorError(f"a plugin provides the {WORDS[kind]} {name}: remove the plugin first")
        if not close:
            known_receivers.check_not_awaited(connection, kind, name)
        confirm(f"Forget the {WORDS[kind]} {name} and its pending changes?", yes)
        awaiting = known_receivers.find_awaiting(connection, kind, name) if close else ()
        closed = sum(records.close(connection, one, kind, name, current_actor()) is True for one in awaiting)
        record(name, on=connection, kind=kind, closed=closed)
        dropped = known_receivers.forget(connection, kind, name)
    data = {"kind": kind, "name": name, "dropped": dropped, "closed": closed}
    remark = f"forgotten, with {counted(dropped, 'pending change')} and {counted(closed, 'unfinished erasure')}"
    write_done(name, data, remark, as_json)


@backends.command("errors")
@name_argument
@json_option
def show_errors(name: str, as_json: bool) -> None:
    """Show the reasons why contacts are parked for the backend NAME.

    Each with the number of contacts, and examples. A parked contact is not retried until it changes, or until `retry`
    or `resync`.

    Exits with 4 if there is no such backend.
    """
    with pool.acquire() as connection:
        find(connection, BACKEND, name, "run `flask ctms erasures list --unfinished`, then `erasures show`")
        found = [asdict(reason) for reason in parked.reasons(connection, name, EXAMPLES)]
    if as_json:
        write_json(found)
    elif found:
        rows = ({**one, "contacts": f"{one['contacts']:,}"}.values() for one in found)
        write_table(("reason", "contacts", "first", "last", "such as"), map(list, rows))
    else:
        say(f"nothing is parked for the backend {name}")


@backends.command("retry")
@name_argument
@click.option(
    "--reason", type=values.stored_text, metavar="TEXT", help="Only contacts that `errors` shows with this reason."
)
@json_option
def retry_parked(name: str, reason: str | None, as_json: bool) -> None:
    """Retry the parked contacts of the backend NAME, with their current data.

    Exits with 4 if there is no such backend, with 3 if it was interrupted.
    """
    with pool.acquire() as connection:
        status = find(connection, BACKEND, name, f"run `flask ctms erasures retry --handler {name} --all`")
        record(name, on=connection)
        with counting("contacts to retry") as count:
            number = count(parked.retry(connection, name, reason))
    write_done(name, {"backend": name, "retried": number}, f"contacts to retry: {number:,}", as_json)
    if status.max_batch is None:
        say("no enabled plugin provides this backend: they stay pending until one does")


@backends.command("resync")
@name_argument
@click.option("--all", "everything", is_flag=True, help="All contacts.")
@click.option("--since", type=values.moment, metavar="TIME", help="Contacts changed since then: a time, or 2h, 7d.")
@click.option(
    "--newsletter", type=values.stored_text, metavar="NAME", help="Contacts that are or were subscribed to it."
)
@click.option("--waitlist", type=values.stored_text, metavar="NAME", help="Contacts that are or were on it.")
@click.option(
    "--filter",
    "where",
    type=values.condition,
    metavar="FILE|JSON",
    help="Contacts that match a condition: a file in TOML or JSON, or JSON text.",
)
@click.option(
    "--email-file",
    type=click.File("rb"),
    metavar="FILE",
    help="Contacts with these addresses: one per line, or an export in CSV or JSON; - reads standard input.",
)
@column_option
@yes_option
@json_option
def resync(
    name: str,
    *,
    everything: bool,
    since: datetime | None,
    newsletter: str | None,
    waitlist: str | None,
    where: values.GivenCondition | None,
    email_file: BinaryIO | None,
    wanted: ReadOptions,
    yes: bool,
    as_json: bool,
) -> None:
    """Push contacts to the backend NAME again that did not change.

    Edits have priority over a resync. --since, --newsletter, --waitlist and --filter can be combined; all must match.
    --all asks for confirmation; without a terminal it requires --yes.

    It can be interrupted (Ctrl-C) and repeated: pending contacts are kept, and not added twice.

    Exits with 4 if no plugin provides this backend; with 2, and no change, if the address column is ambiguous; with 3
    if it was interrupted or the file has bad lines.
    """
    selection = Selection(since, newsletter, waitlist, where.parsed if where else None)
    if [everything, selection != Selection(), email_file is not None].count(True) != 1:
        raise click.UsageError(
            "choose contacts: --all, or --email-file, or --since, --newsletter, --waitlist and --filter"
        )
    with pool.acquire() as connection:
        find_backend(connection, name)
        reader = None if email_file is None else ListReader(email_file, wanted, connection)
        if everything:
            confirm(f"Push all contacts (about {estimate_contacts(connection):,}) to {name} again?", yes)
        record(name, on=connection)
        data: dict[str, Any] = {"backend": name}
        with counting("pending contacts") as count:
            if reader is None:
                data["contacts"] = count(walk.resync(connection, name, selection))
            else:
                data |= _resync_file(connection, name, reader, count)
    unknown = f", addresses without a contact: {data['unknown']:,}" if data.get("unknown") else ""
    write_done(name, data, f"pending contacts: {data['contacts']:,}{unknown}", as_json)
    if reader is not None:
        reader.check()


def _resync_file(
    connection: Connection, name: str, reader: ListReader, count: Callable[[Iterable[int]], int]
) -> dict[str, int]:
    unknown = 0

    def found() -> Iterator[int]:
        nonlocal unknown
        addresses = chain.from_iterable(reader.batches(walk.BATCH))
        for contacts, not_found in walk.resync_addresses(connection, name, addresses):
            unknown += not_found
            yield contacts

    return {"contacts": count(found()), "unknown": unknown, "bad_lines": reader.bad}


@backends.command("verify")
@name_argument
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000),
    default=1_000,
    show_default=True,
    metavar="N",
    help="Number of contacts in the random sample; for a backend that selects contacts, also N of those that it has.",
)
@click.option("--repair", is_flag=True, help="Push contacts again that are missing, differ or should not be there.")
@json_option
def verify(name: str, sample: int, repair: bool, as_json: bool) -> None:
    """Compare the backend NAME with the contacts, and show the differences.

    Shows missing contacts, contacts that should not be there, and differing fields, never values. Contacts that are
    pending or parked, or change during the comparison, are counted but not compared. Deleted contacts cannot be found,
    since nothing is kept of them, except those that a backend which selects contacts is known to have.

    Exits with 3 if it found differences, even with --repair; with 4 if no plugin provides this backend; with 1 if it
    cannot be compared: its plugin must implement `fetch`.
    """
    with pool.acquire() as connection:
        backend = find_backend(connection, name)
        found = comparison.verify(connection, backend, sample)
        if repair and found.wrong:
            record(name, on=connection, contacts=len(found.wrong))
            comparison.repair(connection, backend, found)
    repaired = len(found.wrong) if repair else 0
    if as_json:
        write_json({"backend": name, **asdict(found), "repaired": repaired})
    else:
        _write_findings(found)
    if found.wrong:
        what = f"differences: {counted(len(found.wrong), 'contact')} of {found.sample:,}"
        again = pluralize(len(found.wrong), "it is", "they are") + " pushed again, verify again afterwards"
        raise UnfinishedError(f"{what}; {again if repair else '--repair pushes them again'}")


def _write_findings(found: Findings) -> None:
    counts = {name: len(ids) for name, ids in (("missing", found.missing), ("extra", found.extra))}
    differ = len({one for ids in found.differing.values() for one in ids})
    plain = {name: value for name, value in asdict(found).items() if isinstance(value, int)}
    write_record({name: f"{value:,}" for name, value in {**plain, **counts, "differing": differ}.items()})
    rows = [(name, ids) for name, ids in (("missing", found.missing), ("extra", found.extra)) if ids]
    rows += sorted((f"differs: {place}", ids) for place, ids in found.differing.items())
    if rows:
        click.echo()
        write_table(("what", "contacts", "such as"), ((what, f"{len(ids):,}", ids[:EXAMPLES]) for what, ids in rows))


def _row(status: Status) -> list[Any]:
    state = status.state
    if state == "paused" and status.paused_why:
        state = f"paused: {status.paused_why}"
    elif state == "resting" and status.resting_until:
        state = f"resting until {status.resting_until:%Y-%m-%d %H:%M:%S}"
    return [
        status.name,
        WORDS[status.kind],
        state,
        *(f"{number:,}" for number in (status.waiting, status.retrying, status.parked)),
        status.waiting_since,
        status.last_success_at,
        _error(status),
    ]


def _error(status: Status) -> str | None:
    """Return the last error with its time, which is unknown for errors recorded by earlier versions."""
    if status.last_error is None or status.last_error_at is None:
        return status.last_error
    return f"{status.last_error_at.isoformat(' ', 'seconds')} {status.last_error}"
