"""`flask ctms contacts …`: maintenance of stored contacts."""

from __future__ import annotations

from collections import Counter

import click
from flask.cli import AppGroup

from ctms.cli.audit import record
from ctms.cli.output import json_option, write_json, write_table
from ctms.cli.receivers import check_nothing_is_missing, ignore_missing_option
from ctms.contacts.unreachable_addresses import UnreachableAddress, find_unreachable, store_normal_form
from ctms.database import pool
from ctms.errors import Conflict, Forbidden, NotFound, UnfinishedError
from ctms.words import counted, pluralize

COLUMNS = ("email_id", "identity", "outcome")

contacts = AppGroup("contacts", help="Contacts: irregular data in an adopted database.")


@contacts.command("check-addresses")
@click.option("--normalize", is_flag=True, help="Store the normal form of each, unless another contact has it.")
@ignore_missing_option
@json_option
def check_addresses(normalize: bool, ignore_missing: bool, as_json: bool) -> None:
    """Find stored addresses that look-ups and erasures do not find.

    They come from an adopted database: a domain in full-width characters, white space, needless quotes. Standard output
    has their ids, never an address; `conflict` means that another contact has the normal form, `suppressed` that the
    address is suppressed. Each contact is one transaction; run it again to continue.

    Exits with 3 if some are left.
    """
    with pool.reading() as connection:
        found = list(find_unreachable(connection))
        if normalize and found:
            check_nothing_is_missing(connection, ignore=ignore_missing)
            record(None, on=connection, addresses=len(found))
    outcomes = {one: _settle(one) if normalize else "found" for one in found}
    rows = [(str(one.email_id), one.identity, outcomes[one]) for one in found]
    if as_json:
        write_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    else:
        write_table(COLUMNS, rows)
    counts = Counter(outcomes.values())
    if left := counts["found"] + counts["conflict"] + counts["suppressed"]:
        are, their = pluralize(left, "is", "are"), pluralize(left, "its", "their")
        raise UnfinishedError(f"{counted(left, 'address', 'addresses')} {are} not found by {their} normal form")


def _settle(one: UnreachableAddress) -> str:
    try:
        with pool.writing() as connection:
            store_normal_form(connection, one)
    except Conflict:
        return "conflict"
    except Forbidden:
        return "suppressed"
    except NotFound:
        return "gone"
    return "normalized"
