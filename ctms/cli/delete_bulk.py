"""`flask ctms delete-bulk`: everything about many addresses is deleted."""

from __future__ import annotations

from itertools import chain
from typing import Any, BinaryIO

import click
from flask.cli import with_appcontext

from ctms.bulk import lists
from ctms.bulk.batches import UNKNOWN
from ctms.cli.bulk import Job, Options, bulk_options, carry_out, check_can_ask, operator
from ctms.erasure.deletion import ERASED, ERASED_BEFORE, deletion, look
from ctms.erasure.erase import BY_COMMAND, Order
from ctms.suppression.fingerprints import require_key


def _addresses(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for entry in lists.given(given):
        if entry.problem:
            raise click.BadParameter(entry.problem)
    return given


@click.command("delete-bulk")
@click.option(
    "--email", "emails", multiple=True, callback=_addresses, metavar="ADDRESS", help="Delete this one; repeatable."
)
@click.option(
    "--email-file",
    "files",
    type=click.File("rb"),
    multiple=True,
    metavar="FILE",
    help="Delete those in a list: one a line, or a CSV with a column `email`. - is standard input. Repeatable.",
)
@click.option("--forget", is_flag=True, help="Suppress the addresses, too: they cannot come back.")
@bulk_options
@with_appcontext
def delete_bulk(emails: tuple[str, ...], files: tuple[BinaryIO, ...], forget: bool, **options: Any) -> None:
    """Delete everything about many addresses, here and wherever a deletion handler reaches.

    Blank lines, lines that begin with #, spellings of one address and duplicates are dealt with; a bad line is told and
    passed over. It asks before it deletes; without a terminal it needs --yes.

    Each batch is a transaction. Ctrl-C and SIGTERM end it after the batch in hand; run again it does what is left.
    The report says of each address: erased, erased before, unknown, failed or bad line.

    Exits with 0 when all are deleted or unknown, with 3 when it was stopped, or some lines were bad or failed.
    """
    chosen = Options(**options)
    if not emails and not files:
        raise click.UsageError("name addresses with --email or --email-file")
    check_can_ask(chosen, files)
    if forget:
        require_key()
    order = Order(by=f"operator:{operator()}", origin=BY_COMMAND, forget=forget)

    def question(known: int, unknown: int) -> str:
        what = "Delete and forget" if forget else "Delete"
        return f"{what} {known:,} contacts for ever? ({unknown:,} addresses are unknown)"

    job = Job(
        work=deletion(order),
        look=look,
        done=ERASED,
        outcomes=(ERASED, ERASED_BEFORE, UNKNOWN),
        columns=("address", "outcome", "email_id", "had_fxa", "had_mofo", "line", "problem"),
        question=question,
        record={"erasure": str(order.id)},
    )
    carry_out(job, chain(lists.given(emails), *map(lists.addresses, files)), chosen)
