"""`flask ctms documents …`: the stored documents of contacts."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from ctms.cli.bulk import Stop, Stopped
from ctms.cli.output import json_option, say, write_json, write_record
from ctms.cli.progress import Progress
from ctms.contacts import document_store
from ctms.contacts.stored_documents import is_enabled
from ctms.database import pool
from ctms.errors import OperatorError, UnfinishedError
from ctms.words import counted

documents = AppGroup(
    "documents", help="Stored documents: rendered contacts that make reads faster. Build and verify them."
)


@documents.command("build")
@json_option
def build(as_json: bool) -> None:
    """Store the documents that are missing or outdated, as after an upgrade.

    `flask ctms worker` does the same hourly, for a few minutes at a time. Until then these contacts are rendered when
    they are read. It continues where it was interrupted, and may run while the service runs.

    Exits with 3 if it was interrupted.
    """
    _require_enabled()
    seen = stored = 0
    stop = Stop()
    try:
        with stop.handle_signals(), pool.acquire() as connection, Progress("contacts") as progress:
            for result in document_store.fill_missing(connection):
                seen, stored = seen + result.seen, stored + result.stored
                progress.at(seen)
    except Stopped:
        raise UnfinishedError(f"stopped after {counted(stored, 'document')}: run it again to continue") from None
    if as_json:
        write_json({"contacts": seen, "stored": stored})
    else:
        write_record({"contacts": seen, "stored": stored})


@documents.command("verify")
@click.option(
    "--sample",
    type=click.IntRange(1, 100_000_000),
    metavar="N",
    help="Compare a random sample of N; by default all.",
)
@json_option
def verify(sample: int | None, as_json: bool) -> None:
    """Compare stored documents with rendered ones.

    Documents that are outdated are not compared: nothing reads them. Nothing is changed.

    Exits with 3 if it was interrupted, or if documents differ: report it, and empty the store with
    CTMS_STORED_DOCUMENTS=off.
    """
    _require_enabled()
    checked = different = 0
    stop = Stop()
    try:
        with stop.handle_signals(), pool.acquire() as connection, Progress("documents") as progress:
            for result in document_store.check(connection, sample):
                checked, different = checked + result.checked, different + result.different
                progress.at(checked)
    except Stopped:
        say(f"{different} of {checked} differ so far")
        raise UnfinishedError("stopped") from None
    numbers = {"checked": checked, "different": different}
    if as_json:
        write_json(numbers)
    else:
        write_record(numbers)
    if different:
        what = "differs from the rendered one" if different == 1 else "differ from the rendered ones"
        raise UnfinishedError(f"{counted(different, 'stored document')} {what}")


def _require_enabled() -> None:
    if not is_enabled():
        raise OperatorError("documents are not stored: CTMS_STORED_DOCUMENTS is off")
