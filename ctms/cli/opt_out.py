"""`flask ctms opt-out`: imports the suppression lists of mailing services."""

from __future__ import annotations

from typing import Any, BinaryIO

import click
from flask.cli import with_appcontext

from ctms.bulk.batches import UNKNOWN
from ctms.bulk.columns import ReadOptions
from ctms.cli.bulk import BulkOptions, Job, bulk_options, carry_out, check_can_ask
from ctms.cli.lists import opt_out_column_options, read_lists
from ctms.erasure.optout import OPTED_OUT, OPTED_OUT_BEFORE, opt_out, preview
from ctms.words import counted, pluralize


def _question(known: int, unknown: int) -> str:
    are = pluralize(unknown, "is", "are")
    return f"Opt out {counted(known, 'address', 'addresses')}? ({unknown:,} {are} unknown)"


@click.command("opt-out")
@click.argument("files", type=click.File("rb"), nargs=-1, required=True, metavar="FILE...")
@opt_out_column_options
@bulk_options
@with_appcontext
def opt_out_command(
    files: tuple[BinaryIO, ...],
    column: str | None,
    date_column: str | None,
    reason_column: str | None,
    **options: Any,
) -> None:
    """Opt out the contacts whose own or account address is listed.

    FILE is an export of a mailing service or a spreadsheet (CSV or JSON), a list with one address per line, or - for
    standard input. If an address is repeated, the entry with the latest date counts, of equal dates the last; an entry
    without a readable date is undated, and any dated entry takes precedence. The reason becomes the contact's
    unsubscribe_reason. Contacts that have already opted out are not changed. A bad line is reported and skipped. The
    command asks for confirmation; without a terminal it requires --yes.

    Each batch is one transaction. Ctrl-C and SIGTERM end it after the current batch; run it again to continue. The
    report has the outcome of each address: opted out, opted out before, unknown, failed or bad line.

    Exits with 0 if all are opted out or unknown; with 2, and no change, if the address column is ambiguous; with 3 if
    it was interrupted, or some lines were bad or failed.
    """
    chosen = BulkOptions(**options)
    check_can_ask(chosen, files)
    job = Job(
        work=opt_out,
        preview=preview,
        done=OPTED_OUT,
        outcomes=(OPTED_OUT, OPTED_OUT_BEFORE, UNKNOWN),
        columns=("address", "outcome", "email_id", "line", "problem"),
        question=_question,
        of_accounts=True,
        last_wins=True,
        dated=True,
    )
    wanted = ReadOptions(column, date_column, reason_column, opt_outs=True)
    carry_out(job, read_lists(files, wanted), chosen)
