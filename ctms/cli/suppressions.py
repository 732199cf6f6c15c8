"""`flask ctms suppressions …`: addresses that must not be stored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress as suppress_error
from itertools import chain
from typing import BinaryIO

import click
from flask.cli import AppGroup

from ctms.addresses import MAX_LENGTH, InvalidAddressError, normalize_entry, parse_entry
from ctms.bulk.columns import ReadOptions
from ctms.cli import values
from ctms.cli.audit import record
from ctms.cli.lists import ListReader, column_option
from ctms.cli.output import json_option, say, write_json, write_record, write_table
from ctms.database import pool
from ctms.errors import NotFoundError
from ctms.suppression.check import block_writers, is_suppressed
from ctms.suppression.fingerprints import fingerprints, require_key
from ctms.suppression.suppressions import (
    SOURCE_COMMAND,
    SOURCE_IMPORT,
    SuppressionSummary,
    summarize,
    suppress,
    unsuppress,
)

BATCH = 1000
"""Number of addresses that one transaction suppresses."""

suppressions = AppGroup(
    "suppressions",
    help="Suppressions: addresses that must not be stored again. Only their fingerprints are kept.",
)


def address(value: str) -> str:
    """Parse an e-mail address to suppress, without a display name or other decoration of exports."""
    try:
        return normalize_entry(values.stored_text(value))
    except InvalidAddressError as error:
        raise click.BadParameter("it is not an e-mail address") from error


def possible_addresses(value: str) -> tuple[str, ...]:
    """Parse an address to look for: without the decoration of exports, and as it is given.

    The latter because an adopted database may have text as an address, and earlier versions suppressed it.
    """
    text = values.stored_text(value).strip()
    if "@" not in text or "\0" in text or len(text) > MAX_LENGTH:
        raise click.BadParameter("it is not an e-mail address")
    with suppress_error(InvalidAddressError):
        return tuple(dict.fromkeys((parse_entry(text), text)))
    return (text,)


address_argument = click.argument("addresses", type=possible_addresses, metavar="ADDRESS")


@suppressions.command("list")
@json_option
def list_suppressions(as_json: bool) -> None:
    """Show the numbers of suppressed addresses, their dates and sources.

    The addresses themselves are not stored.
    """
    with pool.reading() as connection:
        found = summarize(connection)
    if as_json:
        write_json([one._asdict() for one in found])
    else:
        write_table(SuppressionSummary._fields, found)


@suppressions.command("add")
@click.argument("address", type=address, metavar="ADDRESS")
@json_option
def add_suppression(address: str, as_json: bool) -> None:
    """Suppress ADDRESS: writes with it as own or account address are refused (403).

    A contact that has it is kept: `delete-bulk --forget` deletes it too. It is no error if the address is already
    suppressed.
    """
    require_key()
    added = _suppress([address], SOURCE_COMMAND)
    if as_json:
        write_json({"added": added, "already": 1 - added})
    else:
        say("suppressed" if added else "already suppressed")


@suppressions.command("check")
@address_argument
@json_option
def check_suppression(addresses: Sequence[str], as_json: bool) -> None:
    """Show whether ADDRESS is suppressed, in any spelling. Exits with 4 if it is not."""
    require_key()
    with pool.reading() as connection:
        suppressed = any(is_suppressed(connection, address) for address in addresses)
    if as_json and suppressed:
        write_json({"suppressed": True})
    if not suppressed:
        raise NotFoundError("this address is not suppressed")
    if not as_json:
        say("suppressed")


@suppressions.command("remove")
@address_argument
@json_option
def remove_suppression(addresses: Sequence[str], as_json: bool) -> None:
    """Allow ADDRESS to be stored again. Exits with 4 if it is not suppressed."""
    require_key()
    with pool.acquire() as connection, connection.transaction():
        found = chain.from_iterable(map(fingerprints().all_of, addresses))
        if removed := unsuppress(connection, list(found)):
            record(None, on=connection, addresses=1)
    if not removed:
        raise NotFoundError("this address is not suppressed")
    if as_json:
        write_json({"removed": 1})
    else:
        say("no longer suppressed")


@suppressions.command("import")
@click.argument("file", type=click.File("rb"), metavar="FILE")
@column_option
@json_option
def import_suppressions(file: BinaryIO, wanted: ReadOptions, as_json: bool) -> None:
    """Suppress the addresses of a list.

    FILE has one address per line, or is an export in CSV or JSON; - is standard input. Blank lines and lines that
    begin with # are skipped; an address counts once, in whatever spelling. A line that is neither an address nor that
    of a contact is bad: it is reported and skipped, and nothing of it is stored. Contacts that have the addresses are
    kept: `delete-bulk --forget` deletes them too. Each thousand is one transaction; run it again to continue.

    Exits with 2, and no change, if the address column is ambiguous; with 3 if some lines were bad or the file ended too
    early.
    """
    require_key()
    reader = ListReader(file, wanted)
    added = sum(_suppress(set(addresses), SOURCE_IMPORT) for addresses in reader.batches(BATCH))
    already = reader.read - added - reader.bad
    counts = {"read": reader.read, "added": added, "already": already, "bad": reader.bad}
    if as_json:
        write_json(counts)
    else:
        write_record(counts)
    reader.check()


def _suppress(addresses: Iterable[str], source: str) -> int:
    """Suppress the addresses in one transaction, and record it; return how many were new."""
    found = {one for address in addresses if (one := fingerprints().of(address)) is not None}
    with pool.acquire() as connection, connection.transaction():
        block_writers(connection, found)
        added = suppress(connection, found, source)
        if added:
            record(None, on=connection, addresses=added)
        return added
