"""`flask ctms import`: contacts from files."""

from __future__ import annotations

import os
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import psycopg
from flask.cli import with_appcontext

from ctms.batches.consent import ConsentRule
from ctms.batches.items import CONFLICT, INVALID, MODES, STORED
from ctms.bulk.batches import FAILED
from ctms.bulk.report import BulkReport
from ctms.cli import values
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.bulk import Stop, Stopped, check_report
from ctms.cli.lists import MAX_LINES
from ctms.cli.output import json_option, say, write_json, write_record
from ctms.cli.progress import Progress
from ctms.cli.receivers import check_nothing_is_missing, ignore_missing_option
from ctms.contacts.evidence import MAX_BYTES
from ctms.contacts.registry import PARTS
from ctms.database import pool
from ctms.database.operator_errors import database_problem
from ctms.errors import OperatorError, UnfinishedError
from ctms.imports.documents import DocumentMap, ExportedColumns
from ctms.imports.mapping import ContactMap, MapError, parse_map
from ctms.imports.preview import ROWS, preview
from ctms.imports.progress import StoredRows
from ctms.imports.readers import FORMATS, RowReader, find_files, find_format, number, open_reader
from ctms.imports.rows import OUTCOMES, ImportRules, RowMap, RowOutcome
from ctms.imports.run import Found, run_import

STANDARD_INPUT = "-"
COLUMNS = ("row", "outcome", "email_id", "place", "problem")
"""The columns of a report."""
MAX_PROCESSES = 64
_MANY_PROCESSES = 8
_BAD = (CONFLICT, INVALID, FAILED)
_MAX_SOURCE = MAX_BYTES // 8


def _read_map(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> ContactMap | None:
    if path is None:
        return None
    try:
        return parse_map(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read: {error.strerror}") from error
    except MapError as error:
        raise click.BadParameter(f"{path}: {error}") from error
    except ValueError as error:  # of TOML or UTF-8
        raise click.BadParameter(f"{path} is not TOML: {error}") from error


def _check_source(_context: click.Context, _parameter: click.Parameter, given: str | None) -> str | None:
    if given is not None and not 0 < len(given.strip()) <= _MAX_SOURCE:
        raise click.BadParameter(f"it should have 1 to {_MAX_SOURCE} characters")
    return given


@dataclass(frozen=True)
class Options:
    """The options of a run."""

    batch_size: int
    processes: int
    report: Path | None
    resume: bool
    dry_run: bool
    ignore_missing: bool
    as_json: bool


@click.command("import")
@click.argument("file", metavar="FILE|DIR|-")
@click.option(
    "--map",
    "contact_map",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_read_map,
    metavar="MAP.TOML",
    help="Which column becomes which member of a contact. Exports of CTMS need none.",
)
@click.option("--mode", type=click.Choice(MODES), required=True, help="Create contacts, update existing ones, or both.")
@click.option("--format", "format_", type=click.Choice(FORMATS), help="Format; by default that of the file's name.")
@click.option(
    "--consent-source",
    type=values.stored_text,
    callback=_check_source,
    metavar="TEXT",
    help="Subscribe people again who unsubscribed or opted out, and record this as the evidence of their consent.",
)
@click.option("--preview", "is_preview", is_flag=True, help=f"Show the first {ROWS} contacts as they would become.")
@click.option("--dry-run", is_flag=True, help="Only count; do not change anything.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=check_report,
    metavar="FILE",
    help="Write the outcome of each row: .csv or .jsonl. Only you can read the file.",
)
@click.option("--resume", is_flag=True, help="Skip the rows that the report says are stored, and append to it.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="Rows per transaction.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, MAX_PROCESSES),
    metavar="N",
    help=f"Processes that import at the same time; by default one per core, at most {_MANY_PROCESSES}.",
)
@ignore_missing_option
@json_option
@with_appcontext
def import_command(
    *,
    file: str,
    contact_map: ContactMap | None,
    mode: str,
    format_: str | None,
    consent_source: str | None,
    is_preview: bool,
    processes: int | None,
    **given: Any,
) -> None:
    """Import contacts from a file: CSV, NDJSON or Parquet, also compressed with gzip or zstd.

    FILE may be an export of CTMS, also a directory of one, or - for standard input. Other files need a map.

    Nobody is subscribed again who unsubscribed from a newsletter or waitlist, or opted out of all e-mail: these stay as
    they are, and who opted out gets no new ones. Suppressed addresses are not stored.

    Each batch is one transaction. Ctrl-C and SIGTERM end it after the current batches; run it again to continue, with
    --report and --resume to skip what is done. A row that is stored already changes nothing. The report has the outcome
    of each row: created, updated, unchanged, conflict, suppressed, not_found, invalid or failed.

    Exits with 2, and no change, if the file, the map or the columns are wrong; with 3 if it was interrupted, or some
    rows are in conflict, invalid or failed.
    """
    options = Options(processes=processes or min(len(os.sched_getaffinity(0)), _MANY_PROCESSES), **given)
    if options.resume and options.report is None:
        raise click.UsageError("--resume needs --report")
    if options.resume and options.dry_run:
        raise click.UsageError("--resume and --dry-run exclude each other")
    with ExitStack() as files:
        readers = _open(file, format_, files)
        rules = ImportRules(
            _choose_map(contact_map, readers), mode, ConsentRule(consent_source), current_actor(), options.dry_run
        )
        rows = number(readers)
        if is_preview:
            write_json(preview(islice(rows, ROWS), rules))
        else:
            _Run(rules, options).carry_out(rows, files)


def _open(given: str, format_: str | None, files: ExitStack) -> list[RowReader]:
    """Open the files. Raises `OperatorError` or `UsageError`."""
    if given == STANDARD_INPUT:
        if format_ is None:
            raise click.UsageError("standard input has no name: pass --format")
        return [open_reader(sys.stdin.buffer, format_)]
    readers = []
    for path in find_files(Path(given)):
        found = format_ or find_format(path)
        if found is None:
            raise click.UsageError(f"the format of {path.name} is not known by its name: pass --format")
        try:
            readers.append(open_reader(files.enter_context(path.open("rb")), found))
        except OSError as error:
            raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error
    return readers


def _choose_map(given: ContactMap | None, readers: Sequence[RowReader]) -> RowMap:
    """Return the map for the files. Raises `UsageError` if it is missing, or columns are."""
    for columns in (reader.columns for reader in readers if reader.columns is not None):
        if given is not None:
            if lacking := [name for name in given.columns if name not in columns]:
                raise click.UsageError(f"the file lacks columns of the map: {', '.join(lacking)}")
        elif set(columns) <= PARTS.keys() and readers[0].columns is not None and "email" in columns:
            continue
        elif ExportedColumns.is_exported(columns):
            return ExportedColumns(columns)
        else:
            raise click.UsageError("these are not the columns of an export: pass a map with --map")
    return given or DocumentMap()


class _Run:
    """A run of the command: counts the outcomes, and writes the report."""

    def __init__(self, rules: ImportRules, options: Options) -> None:
        self._rules = rules
        self._options = options
        self._counts: Counter[str] = Counter()
        self._problems: list[str] = []
        self._started = time.monotonic()

    def carry_out(self, rows: Iterator[Found], files: ExitStack) -> None:
        """Import the rows and write a summary. Raises `OperatorError`."""
        options = self._options
        stop = Stop()
        error: psycopg.Error | OperatorError | None = None
        stored: StoredRows | None = None
        stopped = False
        with pool.reading() as connection:
            check_nothing_is_missing(connection, ignore=options.ignore_missing, dry_run=options.dry_run)
        with self._open_report() as write:
            if options.resume and options.report is not None:
                stored = StoredRows(options.report)
                rows = stored.skip(rows)
            progress: list[Progress] = []

            def report(outcomes: Sequence[RowOutcome]) -> None:
                self._add(outcomes)
                write(outcomes)
                if not progress:  # a bar has a thread, which must not exist when processes are forked
                    progress.append(files.enter_context(Progress("rows")))
                progress[0].at(self._counts.total())

            if not options.dry_run:
                self._record()
            try:
                with stop.handle_signals():
                    run_import(
                        rows,
                        self._rules,
                        report,
                        chunk=options.batch_size,
                        processes=options.processes,
                        defer_signals=stop.defer_signals,
                    )
            except Stopped:
                stopped = True
            except (psycopg.Error, OperatorError) as failed:
                error = failed
        if error and not self._counts:
            raise error
        self._write_summary(stopped, stored)
        if isinstance(error, psycopg.Error) and database_problem(error) is None:
            raise error
        self._say_problems("stopped" if stopped else _text(error))

    @contextmanager
    def _open_report(self) -> Iterator[Callable[[Sequence[RowOutcome]], None]]:
        options = self._options
        if options.report is None:
            yield lambda _: None
            return
        with closing(BulkReport(options.report, COLUMNS, append=options.resume)) as report:
            if options.dry_run:
                yield lambda outcomes: report.write(map(_would, outcomes))
            else:
                yield report.write

    def _record(self) -> None:
        with pool.acquire() as connection, connection.transaction():
            again = not self._rules.consent.keep_unsubscribed
            record(None, on=connection, mode=self._rules.mode, subscribes_again=again)

    def _add(self, outcomes: Sequence[RowOutcome]) -> None:
        self._counts.update(one.outcome for one in outcomes)
        for one in outcomes:
            if one.outcome in _BAD and len(self._problems) < MAX_LINES:
                self._problems.append(f"row {one.row}: {one.place + ': ' if one.place else ''}{one.problem}")

    def _write_summary(self, stopped: bool, stored: StoredRows | None) -> None:
        summary: dict[str, Any] = {
            "rows": self._counts.total(),
            **{one.replace("_", " "): self._counts[one] for one in OUTCOMES},
            **({} if stored is None else {"skipped": stored.skipped}),
            "stopped": stopped,
            "dry run": self._options.dry_run,
            "seconds": round(time.monotonic() - self._started, 3),
        }
        if self._options.as_json:
            write_json({name.replace(" ", "_"): value for name, value in summary.items()})
        else:
            write_record(summary)

    def _say_problems(self, why: str | None) -> None:
        """Report the bad rows. Raises `UnfinishedError` if something was not done."""
        for line in self._problems:
            say(line)
        bad = sum(self._counts[one] for one in _BAD)
        if bad > len(self._problems):
            say(f"and {bad - len(self._problems):,} more")
        problems = [f"{why}: what is counted is done; run it again for the rest"] if why else []
        problems += [f"rows with the outcome {one}: {self._counts[one]:,}" for one in _BAD if self._counts[one]]
        if problems:
            raise UnfinishedError("; ".join(problems))


def _would(outcome: RowOutcome) -> RowOutcome:
    """Return the outcome of a dry run, which is not taken for one of a row that is stored."""
    return outcome._replace(outcome=f"would be {outcome.outcome}") if outcome.outcome in STORED else outcome


def _text(error: psycopg.Error | OperatorError | None) -> str | None:
    return error.message if isinstance(error, OperatorError) else database_problem(error)
