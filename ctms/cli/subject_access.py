"""`flask ctms subject-access`: everything that is stored about a person."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from flask.cli import with_appcontext

from ctms.bulk.entries import make_entry, resolve_entries
from ctms.cli import values
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.output import say
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import ConflictError, OperatorError, UnfinishedError
from ctms.subject_access import copies, html, personal_data, requests
from ctms.subject_access.report import compose
from ctms.suppression.fingerprints import fingerprints
from ctms.words import counted

UNKNOWN_WITHOUT_KEY = (
    "CTMS_ERASURE_KEY is not set: the report does not know whether the address is suppressed or was erased"
)
JSON_FILE, HTML_FILE = "subject-access.json", "subject-access.html"


@click.command("subject-access")
@click.argument("address", type=values.stored_text, metavar="ADDRESS")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Write {JSON_FILE} and {HTML_FILE} into this directory, instead of JSON to standard output.",
)
@with_appcontext
def subject_access(address: str, output: Path | None) -> None:
    """Collect everything that is stored about the person of ADDRESS (GDPR, articles 15 and 20).

    The report has each contact with the address, in any spelling, as its own or account address, and its history;
    whether the address is suppressed; its erasures; and the copies of all backends that can be read. It is written as
    JSON and, with --output, also as a page for people. Only you can read the files. A record of the request is stored,
    which names nobody.

    Exits with 3 if a backend's copies could not be read: the report names the backend. Exits with 10 if a file exists.
    """
    with _files(output) as write:
        with pool.writing() as connection:
            found = personal_data.find(connection, _resolve(connection, address))
        copied = copies.read_all(list(found.contacts))
        statuses = Counter(copy.status for of_contact in copied.values() for copy in of_contact.values())
        failed = statuses[copies.FAILED]
        texts = (
            (content, {name: copy.text for name, copy in copied[email_id].items()})
            for email_id, content in found.contacts.items()
        )
        with pool.acquire() as connection, connection.transaction():
            request_id = requests.add_record(
                connection,
                by=current_actor(),
                contacts=len(found.contacts),
                copies=statuses.total() - statuses[copies.UNSUPPORTED],
                failed=failed,
            )
            record(str(request_id), on=connection)
        write(compose(found.result, texts))
    if not fingerprints().available:
        say(f"Warning: {UNKNOWN_WITHOUT_KEY}.")
    say(f"{counted(len(found.contacts), 'contact')} found")
    if failed:
        raise UnfinishedError(f"{counted(failed, 'copy', 'copies')} of backends could not be read: see the report")


def _resolve(connection: Connection, text: str) -> str:
    """Return the address in the argument. Raises `UsageError` for text that is neither one nor stored as one."""
    (entry,) = resolve_entries(connection, [make_entry(None, text.strip())])
    if entry.address is None:
        raise click.UsageError(f"ADDRESS: {entry.problem}")
    return entry.address


@contextmanager
def _files(folder: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes the report. The files are created before any work, and deleted if that fails.

    Raises `ConflictError` if one exists, and `OperatorError` if one cannot be written.
    """
    if folder is None:
        yield click.echo
        return
    created: list[Path] = []
    try:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (JSON_FILE, HTML_FILE):
                os.close(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                created.append(folder / name)
        except FileExistsError as error:
            raise ConflictError(f"{error.filename} exists: name another directory with --output") from None
        except OSError as error:
            raise OperatorError(f"{error.filename} cannot be written: {error.strerror}") from error
        as_json, as_html = created

        def write(report: str) -> None:
            as_json.write_text(f"{report}\n", encoding="utf-8")
            as_html.write_text(html.render(report), encoding="utf-8")
            say(f"written: {as_json}, {as_html}")

        yield write
    except BaseException:
        for path in created:
            path.unlink(missing_ok=True)
        raise
