"""`flask ctms suppressions …`: addresses that must not come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import BinaryIO

import click
from flask.cli import AppGroup

from ctms import pool
from ctms.bulk import lists
from ctms.bulk.lists import Entry
from ctms.cli.output import json_option, say, write_json, write_record, write_table
from ctms.errors import NotFoundError, UnfinishedError
from ctms.suppression.admission import keep_out
from ctms.suppression.fingerprints import fingerprints, require_key
from ctms.suppression.suppressions import BY_COMMAND, IMPORTED, Summary, let_back, summary, suppress

BATCH = 1000
"""Addresses of a list that one transaction suppresses."""

MOST_LINES = 20
"""Bad lines that are shown."""

suppressions = AppGroup(
    "suppressions",
    help="Suppressions: addresses that must not come back, as their owners are forgotten. Only fingerprints are kept.",
)


def address(value: str) -> str:
    """An address to suppress or to let back in: whatever may be stored, odd ones too."""
    (entry,) = lists.given([value])
    if entry.address is None:
        raise click.BadParameter(entry.problem or "it is not an address")
    return entry.address


address_argument = click.argument("address", type=address, metavar="ADDRESS")


@suppressions.command("list")
@json_option
def list_suppressions(as_json: bool) -> None:
    """Say how many addresses are suppressed, since when and by what: an erasure, a command, an import.

    Which addresses these are is not kept.
    """
    with pool.reading() as connection:
        found = summary(connection)
    if as_json:
        write_json([one._asdict() for one in found])
    else:
        write_table(Summary._fields, found)


@suppressions.command("add")
@address_argument
@json_option
def add_suppression(address: str, as_json: bool) -> None:
    """Suppress ADDRESS: it is refused (403) in whatever is written from now on.

    A contact that has it stays: `delete-bulk --forget` deletes it, too. It is no error when the address is suppressed
    already.
    """
    require_key()
    added = _suppress([address], BY_COMMAND)
    if as_json:
        write_json({"added": added, "already": 1 - added})
    else:
        say("suppressed" if added else "it was suppressed already")


@suppressions.command("remove")
@address_argument
@json_option
def remove_suppression(address: str, as_json: bool) -> None:
    """Let ADDRESS be stored again. Exits with 4 when it is not suppressed."""
    require_key()
    with pool.lend() as connection:
        removed = let_back(connection, fingerprints().all_of(address))
    if not removed:
        raise NotFoundError("this address is not suppressed")
    if as_json:
        write_json({"removed": 1})
    else:
        say("not suppressed any more")


@suppressions.command("import")
@click.argument("file", type=click.File("rb"), metavar="FILE")
@json_option
def import_suppressions(file: BinaryIO, as_json: bool) -> None:
    """Suppress the addresses of the list FILE, one a line, or a CSV with a column `email`; - is standard input.

    Blank lines, lines that begin with #, spellings of one address and duplicates are dealt with; a bad line is told and
    passed over. Contacts that have the addresses stay: `delete-bulk --forget` deletes them, too. Each thousand is a
    transaction; run again it does what is left.

    Exits with 3 when some lines were bad.
    """
    require_key()
    counts = {"read": 0, "added": 0, "already": 0, "bad": 0}
    for batch in _batches(lists.addresses(file)):
        addresses = {entry.address for entry in batch if entry.address is not None}
        for entry in batch:
            if entry.problem:
                counts["bad"] += 1
                if counts["bad"] <= MOST_LINES:
                    say(f"line {entry.line}: {entry.problem}")
        counts["read"] += len(batch)
        counts["added"] += _suppress(addresses, IMPORTED)
    counts["already"] = counts["read"] - counts["added"] - counts["bad"]
    if as_json:
        write_json(counts)
    else:
        write_record(counts)
    if counts["bad"]:
        raise UnfinishedError(f"{counts['bad']:,} lines could not be used")


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while batch := list(islice(entries, BATCH)):
        yield batch


def _suppress(addresses: Iterable[str], source: str) -> int:
    """Suppress the addresses in one transaction; returns how many were not yet."""
    found = {one for address in addresses if (one := fingerprints().of(address)) is not None}
    with pool.lend() as connection, connection.transaction():
        keep_out(connection, found)
        return suppress(connection, found, source)
