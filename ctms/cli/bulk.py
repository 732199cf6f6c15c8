"""Shared code of the bulk commands: options, progress, report, interruption."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
import psycopg

from ctms.bulk.batches import BAD_LINE, FAILED, FOUND, ItemOutcome, Work, process_batches
from ctms.bulk.entries import Entry
from ctms.bulk.report import CSV, JSON_LINES, BulkReport
from ctms.bulk.worklist import WorkItem, WorkList
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.lists import MAX_LINES
from ctms.cli.output import confirm, json_option, say, write_json, write_record, yes_option
from ctms.cli.progress import Progress
from ctms.cli.receivers import check_nothing_is_missing, ignore_missing_option
from ctms.database import pool
from ctms.database.operator_errors import database_problem
from ctms.database.pool import Connection
from ctms.errors import OperatorError, UnfinishedError
from ctms.history.context import set_actor

F = TypeVar("F", bound=Callable[..., Any])


class Stopped(KeyboardInterrupt):
    """The command was interrupted. A `KeyboardInterrupt`, so that psycopg cancels the running statement."""


@dataclass(frozen=True)
class BulkOptions:
    """The options of a bulk command."""

    batch_size: int
    pause: float
    report: Path | None
    append: bool
    dry_run: bool
    ignore_missing: bool
    yes: bool
    as_json: bool


def _ignore(_outcomes: Iterable[ItemOutcome]) -> None:
    """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command's work on addresses: `work`, or `preview` in a dry run; `done` is the outcome that `work` produces.

    `question(known, unknown)` returns the confirmation prompt. `columns` are those of the report, `outcomes` those of
    the summary; the summary of a `dated` job also counts addresses without a date. `committed` receives the outcomes of
    each batch, `figures` returns additional numbers for the summary.
    """

    work: Work
    preview: Work
    done: str
    outcomes: Sequence[str]
    columns: Sequence[str]
    question: Callable[[int, int], str]
    of_accounts: bool = False
    last_wins: bool = False
    dated: bool = False
    record: Mapping[str, Any] = field(default_factory=dict)
    committed: Callable[[Iterable[ItemOutcome]], None] = _ignore
    figures: Callable[[], Mapping[str, Any]] = dict


def bulk_options(command: F) -> F:
    """Add the options to a command, which takes them as `**options`, for `BulkOptions`."""
    for option in (
        json_option,
        yes_option,
        ignore_missing_option,
        click.option("--dry-run", is_flag=True, help="Only count; do not ask or change anything."),
        click.option("--append", is_flag=True, help="Append to an existing report."),
        click.option(
            "--report",
            type=click.Path(dir_okay=False, path_type=Path),
            callback=check_report,
            metavar="FILE",
            help="Write the outcome of each address: .csv or .jsonl. Only you can read the file.",
        ),
        click.option(
            "--pause",
            type=click.FloatRange(0, 3600),
            default=0.0,
            metavar="SECONDS",
            show_default=True,
            help="Pause between batches.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(1, 10_000),
            default=1000,
            show_default=True,
            metavar="N",
            help="Addresses per transaction.",
        ),
    ):
        command = option(command)
    return command


def check_report(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Return the path of a report if its suffix is known. Raises `BadParameter`."""
    if path and path.suffix.lower() not in {CSV, JSON_LINES}:
        raise click.BadParameter(f"the name of a report must end in {CSV} or {JSON_LINES}")
    return path


def check_can_ask(options: BulkOptions, lists: Iterable[object]) -> None:
    """Refuse at once what could not be confirmed later: without a terminal, or with the list on standard input.

    Raises `UsageError` or `OperatorError`.
    """
    if options.yes or options.dry_run:
        return
    if any(one is sys.stdin.buffer for one in lists):
        raise click.UsageError("a list from standard input requires --yes: confirmation is not possible")
    if not sys.stdin.isatty():
        raise OperatorError("confirmation is required, and there is no terminal: pass --yes")


class Stop:
    """Handles SIGINT, SIGTERM and SIGHUP: immediately, or after an uninterruptible section."""

    def __init__(self) -> None:
        self._asked = False
        self._busy = False

    @contextmanager
    def handle_signals(self) -> Iterator[None]:
        """Raise `Stopped` in the block on signals, except those that were ignored before."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {one: signal.getsignal(one) for one in signals if signal.getsignal(one) != signal.SIG_IGN}
        for one in before:
            signal.signal(one, self._hear)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def defer_signals(self) -> Iterator[None]:
        """Defer signals until the end of the block; then raise `Stopped` if one was received."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False
        if self._asked:
            raise Stopped

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        if self._busy:
            self._asked = True
        else:
            raise Stopped


class Tally:
    """The outcomes of the addresses so far."""

    def __init__(self) -> None:
        self.worklist: WorkList | None = None
        self.dealt_with = 0
        self.counts: Counter[str] = Counter()
        self.bad: list[str] = []
        self._started = time.monotonic()

    def add(self, outcomes: Iterable[ItemOutcome]) -> None:
        """Add the outcomes of a batch."""
        outcomes = list(outcomes)
        self.dealt_with += len({one.item.number for one in outcomes})
        self.counts.update(one.outcome for one in outcomes)
        for one in outcomes:
            if one.problem and len(self.bad) < MAX_LINES:
                place = f"line {one.item.line}" if one.item.line else "an address"
                self.bad.append(f"{place}: {one.problem}")

    @property
    def left(self) -> int:
        """The number of unprocessed addresses."""
        return self.worklist.total - self.dealt_with if self.worklist else 0

    @property
    def troubled(self) -> int:
        """The number of failed addresses and bad lines."""
        return self.counts[BAD_LINE] + self.counts[FAILED]

    def summary(self, job: Job, options: BulkOptions, stopped: bool) -> dict[str, Any]:
        """Return the numbers."""
        outcomes = [FOUND if options.dry_run and outcome == job.done else outcome for outcome in job.outcomes]
        return {
            **({} if options.dry_run else job.record),
            **{outcome: self.counts[outcome] for outcome in outcomes},
            **job.figures(),
            "failed": self.counts[FAILED],
            "bad lines": self.counts[BAD_LINE],
            "duplicates": self.worklist.duplicates if self.worklist else 0,
            **({"undated": self.worklist.undated if self.worklist else 0} if job.dated else {}),
            "left": self.left,
            "stopped": stopped,
            "dry run": options.dry_run,
            "seconds": round(time.monotonic() - self._started, 3),
        }


def carry_out(job: Job, entries: Iterable[Entry], options: BulkOptions) -> None:
    """Run the job and write a summary.

    Raises `ListError` or another `OperatorError` before anything is done, `UnfinishedError` if it was interrupted or
    could not process everything.
    """
    tally = Tally()
    stop = Stop()
    error: psycopg.Error | None = None
    stopped = False
    try:
        with stop.handle_signals(), _report(job, options) as report, pool.acquire() as connection:
            check_nothing_is_missing(connection, ignore=options.ignore_missing, dry_run=options.dry_run)
            worklist = tally.worklist = WorkList(connection)
            _read(job, entries, options, worklist)
            with Progress("addresses", worklist.total) as progress:
                actor = current_actor()
                if not options.dry_run:
                    record(job.record.get("erasure"), on=connection, addresses=worklist.total - worklist.problems)

                def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
                    set_actor(connection, actor)
                    return job.work(connection, items)

                def on_commit(outcomes: list[ItemOutcome]) -> None:
                    tally.add(outcomes)
                    job.committed(outcomes)
                    report(outcomes)
                    progress.at(tally.dealt_with)

                process_batches(
                    worklist,
                    job.preview if options.dry_run else work,
                    on_commit,
                    batch_size=options.batch_size,
                    pause=0 if options.dry_run else options.pause,
                    defer_signals=stop.defer_signals,
                )
    except Stopped:
        stopped = True
    except psycopg.Error as failed:
        error = failed
    if error and not tally.dealt_with:
        raise error
    _write_summary(tally.summary(job, options, stopped), options)
    if error and database_problem(error) is None:
        raise error
    _report_bad_lines(tally, "stopped" if stopped else database_problem(error))


def _read(job: Job, entries: Iterable[Entry], options: BulkOptions, worklist: WorkList) -> None:
    """Fill the worklist, and ask for confirmation."""
    with Progress("reading") as progress:
        worklist.load(entries, progress.at)
        worklist.finalize(of_accounts=job.of_accounts, last_wins=job.last_wins)
    if not options.dry_run and not options.yes:
        unknown = worklist.total - worklist.problems - worklist.known
        confirm(job.question(worklist.known, unknown), yes=False)


@contextmanager
def _report(job: Job, options: BulkOptions) -> Iterator[Callable[[list[ItemOutcome]], None]]:
    if options.report is None:
        yield lambda _: None
        return
    with closing(BulkReport(options.report, job.columns, append=options.append)) as report:
        yield report.write


def _write_summary(summary: Mapping[str, Any], options: BulkOptions) -> None:
    if options.as_json:
        write_json({name.replace(" ", "_"): value for name, value in summary.items()})
    else:
        write_record(summary)


def _report_bad_lines(tally: Tally, why: str | None) -> None:
    """Report the bad lines. Raises `UnfinishedError` with the reason if something was not done."""
    for line in tally.bad:
        say(line)
    if tally.troubled > len(tally.bad):
        say(f"and {tally.troubled - len(tally.bad):,} more")
    problems = []
    if why:
        problems.append(f"{why}: what is counted is done; run it again for the rest")
    if tally.counts[BAD_LINE]:
        problems.append(f"skipped bad lines: {tally.counts[BAD_LINE]:,}")
    if tally.counts[FAILED]:
        problems.append(f"addresses that failed: {tally.counts[FAILED]:,}")
    if problems:
        raise UnfinishedError("; ".join(problems))
