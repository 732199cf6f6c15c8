"""Shared behaviour of the bulk commands: interruption, output, exit statuses."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
import psycopg
import pytest
from psycopg import errors

from ctms.bulk.batches import ItemOutcome
from ctms.bulk.entries import Entry
from ctms.bulk.worklist import WorkItem
from ctms.cli.bulk import BulkOptions, Job, Stop, Stopped, carry_out
from ctms.cli.progress import Progress
from ctms.database.pool import Connection
from ctms.errors import UnfinishedError


@pytest.fixture(autouse=True)
def running_command() -> Iterator[None]:
    """Run each test as a command, which the audit log names."""
    with click.Context(click.Command("sweep")):
        yield


def job(work: Callable[[Connection, Sequence[WorkItem]], list[ItemOutcome]]) -> Job:
    return Job(
        work=work,
        preview=work,
        done="seen",
        outcomes=("seen",),
        columns=("address", "outcome"),
        question=lambda known, unknown: f"{known} {unknown}?",
    )


def options(report: Path | None = None) -> BulkOptions:
    return BulkOptions(
        batch_size=2,
        pause=0.0,
        report=report,
        append=False,
        dry_run=False,
        ignore_missing=False,
        yes=True,
        as_json=True,
    )


def seen(_connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
    return [ItemOutcome(item, "seen") for item in items]


def entries(count: int) -> Iterator[Entry]:
    return (Entry(number, f"{number}@x") for number in range(1, count + 1))


@contextmanager
def handled(number: signal.Signals) -> Iterator[object]:
    """Have a handler for a signal, whether the parent process ignores it (`nohup`, `&`) or not."""

    def handler(*_: object) -> None:
        pytest.fail("nobody else heard it")

    before = signal.signal(number, handler)
    try:
        yield handler
    finally:
        signal.signal(number, before)


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_after_the_batch_in_hand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, number: signal.Signals
) -> None:
    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        if items[0].line == 3:
            os.kill(os.getpid(), number)
        return seen(connection, items)

    with handled(number) as handler:
        with pytest.raises(UnfinishedError, match="stopped: what is counted is done; run it again") as stopped:
            carry_out(job(work), entries(9), options(tmp_path / "r.csv"))
        assert signal.getsignal(number) is handler

    assert stopped.value.exit_code == 3
    told = json.loads(capsys.readouterr().out)
    assert (told["seen"], told["left"], told["stopped"]) == (4, 5, True)
    assert (tmp_path / "r.csv").read_text().splitlines()[1:] == [f"{number}@x,seen" for number in range(1, 5)]


@pytest.mark.usefixtures("app")
def test_a_signal_ends_reading_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def read() -> Iterator[Entry]:
        yield from entries(3)
        os.kill(os.getpid(), signal.SIGTERM)
        yield from entries(3)

    with pytest.raises(UnfinishedError, match="stopped"):
        carry_out(job(seen), read(), options(tmp_path / "r.csv"))

    assert json.loads(capsys.readouterr().out)["seen"] == 0
    assert not list(tmp_path.iterdir())


def test_signals_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop().handle_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pause_ends_at_once() -> None:
    stop = Stop()
    with stop.handle_signals(), pytest.raises(Stopped):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("app")
def test_a_database_that_is_lost_in_between(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        if items[0].line == 3:
            raise errors.AdminShutdown("terminating connection")
        return seen(connection, items)

    with pytest.raises(UnfinishedError, match=r"the database cannot be reached: .*run it again") as lost:
        carry_out(job(work), entries(9), options(tmp_path / "r.csv"))

    assert lost.value.exit_code == 3
    assert json.loads(capsys.readouterr().out)["left"] == 7
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 3


@pytest.mark.usefixtures("app")
def test_a_database_that_is_lost_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def work(_connection: Connection, _items: Sequence[WorkItem]) -> list[ItemOutcome]:
        raise errors.AdminShutdown("terminating connection")

    with pytest.raises(psycopg.OperationalError):
        carry_out(job(work), entries(9), options())

    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("app")
def test_failures_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        if any(item.line == 3 for item in items):
            raise errors.ForeignKeyViolation
        return seen(connection, items)

    with pytest.raises(UnfinishedError, match="addresses that failed: 1"):
        carry_out(job(work), entries(4), options())

    told = capsys.readouterr()
    assert (json.loads(told.out)["seen"], json.loads(told.out)["failed"]) == (3, 1)
    assert told.err == "line 3: the database does not allow it: ForeignKeyViolation\n"


def test_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    with Progress("addresses", 10_000) as progress:
        for second in range(25):
            now[0] = 100.0 + second
            progress.at(second * 100)

    assert capsys.readouterr().err.splitlines() == [
        "addresses: 1,000 of 10,000, 100/s, 0:01:30 left",
        "addresses: 2,000 of 10,000, 100/s, 0:01:20 left",
    ]
