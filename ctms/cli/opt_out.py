"""`flask ctms opt-out`: the mailing service's suppression lists are taken over."""

from __future__ import annotations

from itertools import chain
from typing import Any, BinaryIO

import click
from flask.cli import with_appcontext

from ctms.bulk import lists
from ctms.bulk.batches import UNKNOWN
from ctms.cli.bulk import Job, Options, bulk_options, carry_out, check_can_ask
from ctms.erasure.optout import OPTED_OUT, OPTED_OUT_BEFORE, look, opt_out


@click.command("opt-out")
@click.argument("files", type=click.File("rb"), nargs=-1, required=True, metavar="FILE...")
@bulk_options
@with_appcontext
def opt_out_command(files: tuple[BinaryIO, ...], **options: Any) -> None:
    """Opt out the contacts in lists of opt-outs: those whose own or account's address is there.

    FILE is a CSV with the columns Email, Date and Reason, in any order, with any delimiter, or - for standard input.
    Dates are ISO 8601 or YYYY-MM-DD HH:MM AM; of an address that comes again the latest counts, of two at once the
    last. Reason becomes the contact's unsubscribe_reason. Who has opted out already is left alone. A bad line is told
    and passed over. It asks before it changes anything; without a terminal it needs --yes.

    Each batch is a transaction. Ctrl-C and SIGTERM end it after the batch in hand; run again it does what is left.
    The report says of each address: opted out, opted out before, unknown, failed or bad line.

    Exits with 0 when all are opted out or unknown, with 3 when it was stopped, or some lines were bad or failed.
    """
    chosen = Options(**options)
    check_can_ask(chosen, files)
    job = Job(
        work=opt_out,
        look=look,
        done=OPTED_OUT,
        outcomes=(OPTED_OUT, OPTED_OUT_BEFORE, UNKNOWN),
        columns=("address", "outcome", "email_id", "line", "problem"),
        question=lambda known, unknown: f"Opt out {known:,} addresses? ({unknown:,} are unknown)",
        of_accounts=True,
        last_wins=True,
    )
    carry_out(job, chain.from_iterable(map(lists.opt_outs, files)), chosen)
