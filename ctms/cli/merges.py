"""`flask ctms duplicates` and `flask ctms merge`: contacts that are the same person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any
from uuid import UUID

import click
from flask.cli import with_appcontext

from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.output import confirm, json_option, say, write_json, write_table, yes_option
from ctms.cli.receivers import check_nothing_is_missing, ignore_missing_option
from ctms.contacts import duplicates, merging
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import Forbidden, NotFound, NotFoundError, OperatorError, Unavailable
from ctms.history.context import set_actor

COLUMNS = ("shared", "contacts", "target", "reason", "others")
OUTCOMES = ("part", "name", "outcome")


@click.command("duplicates")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Maximum number.")
@json_option
@with_appcontext
def duplicates_command(limit: int, as_json: bool) -> None:
    """List contacts that may be the same person, with a proposal which one to keep.

    They share an account address, an address in different spellings, or another identity that is not unique, such as
    sfdc_id. An account address is also shared with a contact that has it as its own. The target is the contact with an
    account, else with a confirmed address, else the one that changed last. At most 100 contacts with the same value are
    listed. Standard output has ids, never an address.

    Nothing is changed: see `flask ctms merge`.
    """
    with pool.reading() as connection:
        rows = list(islice(_propose(connection), limit))
    if as_json:
        write_json(rows)
    else:
        write_table(COLUMNS, ([row[name] for name in COLUMNS] for row in rows))


@click.command("merge")
@click.argument("target", type=click.UUID, metavar="TARGET")
@click.argument("source", type=click.UUID, metavar="SOURCE")
@click.option("--dry-run", is_flag=True, help="Show the result without storing it.")
@ignore_missing_option
@yes_option
@json_option
@with_appcontext
def merge_command(*, target: UUID, source: UUID, dry_run: bool, ignore_missing: bool, yes: bool, as_json: bool) -> None:
    """Merge the contact SOURCE into the contact TARGET, and delete SOURCE; both are ids.

    The values of TARGET are kept, and blank ones are filled. Of each subscription the latest decision counts, and any
    opt-out stays. Standard output has what was filled, the contact whose decision counts, and conflicts: values of
    SOURCE that are lost. It has no values of fields. The command asks for confirmation; without a terminal it requires
    --yes.

    Exits with 4 if one of the contacts does not exist.
    """
    if target == source:
        raise click.UsageError("a contact cannot be merged into itself")
    with pool.reading() as connection:
        check_nothing_is_missing(connection, ignore=ignore_missing, dry_run=dry_run)
    if not dry_run:
        confirm(f"Merge {source} into {target}, and delete {source}? It cannot be undone.", yes)
    try:
        with pool.writing() as connection:
            set_actor(connection, current_actor())
            with connection.transaction(force_rollback=True) if dry_run else nullcontext():
                merged = merging.merge(connection, merging.lock(connection, target, source))
                record(None, on=connection)
    except NotFound as error:
        missing = source if error.extra.get("field") == "from" else target
        into = error.extra.get("merged_into")
        raise NotFoundError(
            f"there is no contact {missing}" + (f": it was merged into {into}" if into else "")
        ) from None
    except Forbidden:
        raise OperatorError("the account address of the contact is suppressed: erase the contact instead") from None
    except Unavailable:
        raise OperatorError("the contacts are being changed: run the command again") from None
    found = merging.describe(merged.plan, target, source)
    conflicts = [{"part": one["part"], "field": one["field"]} for one in found["conflicts"]]
    if as_json:
        write_json({"dry_run": dry_run, "target": target, "merged_from": source, **found, "conflicts": conflicts})
    else:
        write_table(OUTCOMES, _outcomes({**found, "conflicts": conflicts}, source))
        say("nothing was changed" if dry_run else f"{source} was merged into {target}")


def _propose(connection: Connection) -> Iterator[dict[str, Any]]:
    for found in duplicates.find_duplicates(connection):
        if (proposal := duplicates.propose(connection, found)) is not None:
            yield {"shared": found.identity, "contacts": found.number, **proposal._asdict()}


def _outcomes(found: dict[str, list[dict[str, Any]]], source: UUID) -> Iterator[tuple[str, str, str]]:
    for one in found["filled"]:
        yield one["part"], one["field"], "filled"
    for one in found["subscriptions"]:
        state = "subscribed" if one["subscribed"] else "unsubscribed"
        contact = "source" if one["decided_by"] == str(source) else "target"
        yield one["part"], one["name"], f"{state}, as in the {contact}"
    for one in found["conflicts"]:
        yield one["part"], one["field"], "conflict"
