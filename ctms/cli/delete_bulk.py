"""`flask ctms delete-bulk`: deletes all data about many addresses."""

from __future__ import annotations

from itertools import chain
from typing import Any, BinaryIO

import click
from flask.cli import with_appcontext

from ctms.bulk import lists
from ctms.bulk.batches import UNKNOWN
from ctms.bulk.columns import ReadOptions
from ctms.bulk.entries import Entry, resolve_entries
from ctms.cli import values
from ctms.cli.actor import current_actor
from ctms.cli.bulk import BulkOptions, Job, bulk_options, carry_out, check_can_ask
from ctms.cli.lists import column_option, read_lists
from ctms.cli.output import say
from ctms.database import pool
from ctms.erasure.deletion import ERASED, ERASED_BEFORE, BulkDeletion
from ctms.erasure.erase import ORIGIN_COMMAND, ErasureRequest
from ctms.suppression.fingerprints import KEY_MISSING, fingerprints, require_key
from ctms.words import counted, pluralize


def _given(emails: tuple[str, ...]) -> list[Entry]:
    """Return the entries of single addresses.

    Raises `UsageError` for one that is neither an address nor that of a contact.
    """
    entries = list(lists.entries_of(emails))
    if any(entry.given for entry in entries):
        with pool.acquire() as connection:
            entries = resolve_entries(connection, entries)
    problem = next((entry.problem for entry in entries if entry.problem), None)
    if problem:
        raise click.UsageError(f"--email: {problem}")
    return entries


@click.command("delete-bulk")
@click.option(
    "--email",
    "emails",
    type=values.stored_text,
    multiple=True,
    metavar="ADDRESS",
    help="Delete this address; repeatable.",
)
@click.option(
    "--email-file",
    "files",
    type=click.File("rb"),
    multiple=True,
    metavar="FILE",
    help="Delete the addresses of a list: one per line, or an export in CSV or JSON. - is standard input. Repeatable.",
)
@column_option
@click.option("--forget", is_flag=True, help="Also suppress the addresses, so that they cannot be stored again.")
@click.option(
    "--include-fxa",
    is_flag=True,
    help="Also delete other contacts that have the address as that of their account, or lost it in a merge.",
)
@bulk_options
@with_appcontext
def delete_bulk(
    emails: tuple[str, ...],
    files: tuple[BinaryIO, ...],
    wanted: ReadOptions,
    forget: bool,
    include_fxa: bool,
    **options: Any,
) -> None:
    """Delete all data about many addresses, here and in other systems.

    Blank lines and lines that begin with # are skipped; an address counts once, in whatever spelling. A line that is
    neither an address nor that of a contact is bad: it is reported and skipped. The command asks for confirmation;
    without a terminal it requires --yes.

    Other contacts may have an address as their account address (fxa.primary_email), or have lost it in a merge. They
    are kept, unless --include-fxa is given; the summary counts them as `also known in`.

    Each batch is one transaction. Ctrl-C and SIGTERM end it after the current batch; run it again to continue. The
    report has the outcome of each address: erased, erased before, unknown, failed or bad line.

    Exits with 0 if all are deleted or unknown; with 2, and no change, if the address column is ambiguous; with 3 if it
    was interrupted, or some lines were bad or failed.
    """
    chosen = BulkOptions(**options)
    if not emails and not files:
        raise click.UsageError("pass addresses with --email or --email-file")
    entries = _given(emails)
    check_can_ask(chosen, files)
    if forget:
        require_key()
    elif not fingerprints().available:
        say(f"Warning: {KEY_MISSING}.")
    request = ErasureRequest(by=current_actor(), origin=ORIGIN_COMMAND, forget=forget, include_fxa=include_fxa)
    deletion = BulkDeletion(request)

    def question(known: int, unknown: int) -> str:
        what = "Delete and suppress" if forget else "Delete"
        whom = counted(known, "contact")
        if include_fxa:
            whom = f"all contacts with {counted(known, 'address', 'addresses')}, also of accounts,"
        are = pluralize(unknown, "is", "are")
        return f"{what} {whom} permanently? ({counted(unknown, 'address', 'addresses')} {are} unknown)"

    job = Job(
        work=deletion.erase,
        preview=deletion.preview,
        done=ERASED,
        outcomes=(ERASED, ERASED_BEFORE, UNKNOWN),
        columns=("address", "outcome", "email_id", "had_fxa", "had_mofo", "line", "problem"),
        question=question,
        of_accounts=include_fxa,
        record={"erasure": str(request.id)},
        committed=deletion.report,
        figures=lambda: {"also known in": deletion.also_known_in},
    )
    carry_out(job, chain(entries, read_lists(files, wanted)), chosen)
