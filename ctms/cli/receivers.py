"""Shared code of the commands for backends and deletion handlers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ctms.cli import values
from ctms.cli.output import names, say
from ctms.database.pool import Connection
from ctms.errors import NotFoundError, OperatorError
from ctms.hooks.receivers import Backend
from ctms.outbox.changes import outbox
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.sync import receiver_states
from ctms.sync.known_receivers import describe_missing, missing
from ctms.sync.receiver_states import WORDS, State

NO_COPIES = "it keeps no copies that could be pushed again or compared"
"""Hint for a command that needs a backend with contacts, but names a deletion handler."""

name_argument = click.argument("name", type=values.stored_text, metavar="NAME")
kind_option = click.option(
    "--deletion-handler",
    "kind",
    flag_value=HANDLER,
    default=BACKEND,
    help="NAME is a deletion handler, not a backend.",
)


def shown(state: State) -> dict[str, Any]:
    """Return the data of a backend or deletion handler."""
    record = asdict(state)
    del record["max_batch"]
    return {"kind": record.pop("kind"), "name": record.pop("name"), "state": state.state, **record}


def find(connection: Connection, kind: str, name: str, hint: str) -> State:
    """Return the state of a backend or deletion handler.

    Raises `NotFoundError` if neither a plugin nor a table has the name; with the `hint` what to do if the name belongs
    to the other kind.
    """
    found = receiver_states.state(connection, kind, name)
    if found is None:
        _refuse_other_kind(connection, kind, name, hint)
        known = {known for its_kind, known in missing(connection) if its_kind == kind}
        there = names(sorted({*receiver_states.registered(kind), *known})) or "none"
        raise NotFoundError(f"there is no {WORDS[kind]} {name}; the {WORDS[kind]}s are {there}")
    return found


def find_backend(connection: Connection, name: str) -> Backend:
    """Return a backend of an installed plugin. Raises `NotFoundError`."""
    found = outbox().backends
    if name not in found:
        _refuse_other_kind(connection, BACKEND, name, NO_COPIES)
        raise NotFoundError(
            f"no plugin that is on has a backend {name}; the backends are {names(sorted(found)) or 'none'}"
        )
    return found[name]


ignore_missing_option = click.option(
    "--ignore-missing",
    is_flag=True,
    help="Continue even if no plugin here provides a backend or deletion handler that the database knows.",
)


def check_nothing_is_missing(connection: Connection, *, ignore: bool, dry_run: bool = False) -> None:
    """Refuse to change contacts if a backend or deletion handler would not receive the changes.

    It is missing in a shell that lacks the variables of its plugin. Raises `OperatorError`, unless it is to be ignored;
    a dry run only warns.
    """
    if ignore or not (problem := describe_missing(connection)):
        return
    if dry_run:
        say(f"Warning: {problem}.")
    else:
        raise OperatorError(
            f"{problem}; set the variables of its plugin in this shell, too, or pass --ignore-missing if it is no"
            " longer used"
        )


def unsynchronised(name: str) -> str:
    """Return the remark about a backend that was never synchronised."""
    return (
        f"the backend {name} was never synchronised: run `flask ctms backends resync {name} --all`"
        " to push the contacts from before it"
    )


def _refuse_other_kind(connection: Connection, kind: str, name: str, hint: str) -> None:
    other = HANDLER if kind == BACKEND else BACKEND
    if receiver_states.state(connection, other, name) is not None:
        raise NotFoundError(f"{name} is a {WORDS[other]}, not a {WORDS[kind]}: {hint}")
