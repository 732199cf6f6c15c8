"""Helpers for tests that process work lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

import pytest
from flask import Flask

from ctms.bulk.batches import ItemOutcome, Work, process_batches
from ctms.bulk.entries import Entry
from ctms.bulk.worklist import WorkItem, WorkList
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.suppression.fingerprints import Fingerprints


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:  # noqa: ARG001  inside the app's transaction
    """Return the connection that does the work."""
    with pool.acquire() as connection:
        yield connection


@pytest.fixture
def erasure_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set `CTMS_ERASURE_KEY` of the app."""
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key of thirty-two bytes or more"))


def work_list(
    connection: Connection, entries: Iterable[Entry], *, of_accounts: bool = False, last_wins: bool = False
) -> WorkList:
    """Return a work list of these entries."""
    worklist = WorkList(connection)
    worklist.load(entries, lambda _: None)
    worklist.finalize(of_accounts=of_accounts, last_wins=last_wins)
    return worklist


def outcomes(worklist: WorkList, work: Work, batch_size: int = 100) -> list[ItemOutcome]:
    """Process a list and return the outcomes of its items."""
    found: list[ItemOutcome] = []
    process_batches(worklist, work, found.extend, batch_size=batch_size, pause=0, defer_signals=nullcontext)
    return found


def named(found: Sequence[ItemOutcome]) -> dict[str | None, str]:
    """Return the outcomes by address."""
    return {one.item.address: one.outcome for one in found}


def nothing(_connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
    """Do nothing to a batch."""
    return [ItemOutcome(item, "seen") for item in items]
