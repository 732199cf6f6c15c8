"""The work of an import on a chunk of rows: map and validate each, then write all in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple, Protocol
from uuid import UUID

from ctms.batches.consent import ConsentRule
from ctms.batches.items import (
    CONFLICT,
    CREATED,
    INVALID,
    NOT_FOUND,
    SUPPRESSED,
    UNCHANGED,
    UPDATED,
    BatchItem,
    BatchResult,
    parse_item,
)
from ctms.batches.writer import write
from ctms.bulk.batches import FAILED, process_batch
from ctms.contacts.registry import IDENTITIES, PARTS
from ctms.database.pool import Connection
from ctms.errors import LoggedError
from ctms.history.context import set_actor
from ctms.imports.mapping import Item, Row, RowError

OUTCOMES = (CREATED, UPDATED, UNCHANGED, CONFLICT, SUPPRESSED, NOT_FOUND, INVALID, FAILED)
"""The outcomes of rows, as reports name them."""

MAX_PROBLEMS = 3
"""Number of problems of a row that its outcome names."""


class RowMap(Protocol):
    """A map of rows to items."""

    def key(self, row: Row) -> str | None:
        """Return the value that rows of one contact share, None if the row has none."""

    def item(self, row: Row, mode: str) -> Item:
        """Return the item of a batch. Raises `RowError`."""


class RowOutcome(NamedTuple):
    """The outcome of a row, with the places of problems in the contact, and the problems without values."""

    row: int
    outcome: str
    email_id: UUID | None = None
    place: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ImportRules:
    """What an import does with each row; `actor` is who runs it."""

    map: RowMap
    mode: str
    consent: ConsentRule
    actor: str
    dry_run: bool = False


_NAMES = {"match", "evidence", *PARTS, *(member for part in PARTS.values() for member in part.fields)}

Rows = Sequence[tuple[int, Row]]


def import_rows(connection: Connection, rows: Rows, rules: ImportRules) -> list[RowOutcome]:
    """Import the rows in one transaction, or in several if that fails; return the outcome of each.

    A dry run is rolled back. Raises `psycopg.Error` when the connection is lost or permissions are missing.
    """
    outcomes: list[RowOutcome] = []
    items: list[tuple[int, BatchItem]] = []
    for number, row in rows:
        parsed = _parse(row, rules)
        if isinstance(parsed, BatchItem):
            items.append((number, parsed))
        else:
            outcomes.append(_outcome(number, parsed) if isinstance(parsed, BatchResult) else bad_row(number, parsed))

    def work(connection: Connection, items: Sequence[tuple[int, BatchItem]]) -> Iterable[RowOutcome]:
        with connection.transaction(force_rollback=True) if rules.dry_run else nullcontext():
            set_actor(connection, rules.actor)
            results = write(connection, [item for _, item in items])
        return [_outcome(number, result) for (number, _), result in zip(items, results, strict=True)]

    outcomes += process_batch(connection, work, items, _fail)
    return sorted(outcomes)


def bad_row(number: int, error: RowError) -> RowOutcome:
    """Return the outcome of a row that is unusable."""
    return RowOutcome(number, INVALID, None, error.place or None, error.message)


def _parse(row: Row, rules: ImportRules) -> BatchItem | BatchResult | RowError:
    try:
        return parse_item(rules.map.item(row, rules.mode), rules.consent)
    except RowError as error:
        return error
    except LoggedError as error:  # of a plugin's rules, without values
        return RowError((), str(error))


def _fail(item: tuple[int, BatchItem], problem: str) -> RowOutcome:
    return RowOutcome(item[0], FAILED, None, None, problem)


def _outcome(number: int, result: BatchResult) -> RowOutcome:
    if not result.problems:
        return RowOutcome(number, result.status, result.email_id)
    found = result.problems[:MAX_PROBLEMS]
    places = [_place([str(step) for step in one["loc"]]) for one in found]
    return RowOutcome(
        number,
        result.status,
        result.email_id,
        "; ".join(dict.fromkeys(filter(None, places))) or None,
        "; ".join(dict.fromkeys(one["msg"] for one in found)),
    )


def _place(steps: list[str]) -> str:
    """Return a place in an item as one in the contact, up to the first name that may come from a row."""
    if steps[:1] == ["match"] and steps[1:2] and steps[1] in IDENTITIES:
        one = IDENTITIES[steps[1]]
        steps = [one.part.name, one.column]
    steps = steps[1:] if steps[:1] == ["contact"] else steps
    return ".".join(takewhile(lambda step: step.isdecimal() or step in _NAMES, steps))
