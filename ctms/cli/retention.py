"""`flask ctms retention …`: rules that erase or anonymise contacts when they are no longer needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup

from ctms.bulk.report import BulkReport
from ctms.cli.actor import current_actor
from ctms.cli.audit import record
from ctms.cli.bulk import Stop, Stopped, check_report
from ctms.cli.output import json_option, say, write_json, write_record, write_table
from ctms.cli.progress import Progress
from ctms.cli.receivers import check_nothing_is_missing, ignore_missing_option
from ctms.database import pool
from ctms.errors import UnfinishedError
from ctms.retention import runs
from ctms.retention.anonymise import COLUMNS, read_counts
from ctms.retention.candidates import Candidate, CandidateCounts, Scan
from ctms.retention.policy import MAX_CONTACTS, RetentionPolicy, RetentionRule, read_configured_policy, read_policy
from ctms.retention.run import (
    ANONYMISED,
    ERASED,
    FAILED,
    HELD,
    OUTCOMES,
    RetentionOutcome,
    RunOptions,
    apply_rules,
    database_time,
)
from ctms.words import counted

FOUND = "found"
REPORT = ("email_id", "rule", "outcome", "problem")

retention = AppGroup("retention", help="Retention: rules that erase or anonymise contacts, and their runs.")


@retention.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@json_option
def check_rules(file: Path | None, as_json: bool) -> None:
    """Check the retention file, or FILE, and list its rules in the order in which they apply.

    It also reads the lists of the legal holds. It needs no database; `run --dry-run` counts the contacts.
    """
    policy = read_policy(file) if file else read_configured_policy()
    rules = [{"rule": rule.name, "action": rule.action, "description": rule.description} for rule in policy.rules]
    held = {"held_ids": len(policy.hold.ids), "held_addresses": len(policy.hold.keys)}
    if as_json:
        write_json({"rules": rules, **held, "max_contacts": policy.max_contacts})
        return
    write_table(("rule", "action", "description"), (list(rule.values()) for rule in rules))
    click.echo()
    write_record({**{name.replace("_", " "): number for name, number in held.items()}, "max": policy.max_contacts})


@retention.command("run")
@click.option("--dry-run", is_flag=True, help="Only count; do not change anything.")
@click.option(
    "--max",
    "maximum",
    type=click.IntRange(1, MAX_CONTACTS),
    metavar="N",
    help="Erase nothing if the rules match more contacts; overrides max_contacts of the file.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=check_report,
    metavar="FILE",
    help="Write the id, rule and outcome of each contact: .csv or .jsonl.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 5_000),
    default=500,
    show_default=True,
    metavar="N",
    help="Contacts per transaction.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    show_default=True,
    help="Pause between batches.",
)
@ignore_missing_option
@json_option
def run_rules(
    *,
    dry_run: bool,
    maximum: int | None,
    report: Path | None,
    batch_size: int,
    pause: float,
    ignore_missing: bool,
    as_json: bool,
) -> None:
    """Apply the retention rules, or count the contacts that they match.

    It counts first. If the rules match more contacts than the maximum, nothing is erased. Contacts under a legal hold
    are kept, and so are those that change during the run.

    Each batch is one transaction. Ctrl-C and SIGTERM end it after the current batch; run it again to continue.

    Exits with 3 if the rules match more contacts than the maximum, if it was interrupted, or if some contacts failed.
    """
    policy = read_configured_policy()
    limit = maximum or policy.max_contacts
    stop = Stop()
    counts: Counter[tuple[str, str]] = Counter()
    with _report(report) as write, pool.acquire() as connection:
        check_nothing_is_missing(connection, ignore=ignore_missing, dry_run=dry_run)
        if dry_run:
            found = _count(connection, policy, write)
            _write(policy, found, Counter(), limit, as_json, dry_run=True)
            if found.due.total() > limit:
                raise UnfinishedError(
                    f"the rules match {counted(found.due.total(), 'contact')}, more than the maximum of {limit:,}"
                )
            return

        record(None, on=connection, max_contacts=limit)
        with Progress("contacts") as progress:

            def on_commit(outcomes: Sequence[RetentionOutcome]) -> None:
                counts.update((one.rule, one.outcome) for one in outcomes)
                write(outcomes)
                progress.at(counts.total())

            options = RunOptions(
                by=current_actor(),
                maximum=limit,
                batch_size=batch_size,
                pause=pause,
                on_commit=on_commit,
                defer_signals=stop.defer_signals,
            )
            try:
                with stop.handle_signals():
                    result = apply_rules(connection, policy, options)
            except Stopped:
                number = sum(counts[rule.name, outcome] for rule in policy.rules for outcome in (ERASED, ANONYMISED))
                raise UnfinishedError(
                    f"stopped after {counted(number, 'contact')}; run it again for the rest"
                ) from None
    if result.outcome == runs.OVER_MAX:
        raise UnfinishedError(
            f"the rules match more contacts than the maximum of {limit:,}: nothing is erased;"
            " count them with --dry-run, then correct the rules or pass --max"
        )
    _write(policy, result.found, counts, limit, as_json, dry_run=False)
    if result.outcome == runs.INCOMPLETE:
        raise UnfinishedError(f"contacts that failed: {result.numbers[FAILED]:,}; run it again to retry them")


@retention.command("runs")
@click.option("--limit", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Maximum number.")
@json_option
def list_runs(limit: int, as_json: bool) -> None:
    """List the runs, newest first. One without an outcome is in progress, or was killed."""
    with pool.reading() as connection:
        found = runs.newest(connection, limit)
    if as_json:
        write_json(found)
    else:
        write_table(runs.COLUMNS, (list(one.values()) for one in found))


@retention.command("statistics")
@json_option
def show_statistics(as_json: bool) -> None:
    """Show the numbers of anonymised contacts: all that is left of them.

    A contact is counted once with the kind `contacts`, and once for each newsletter and waitlist; for a contact,
    `subscribed` means to any of them.
    """
    with pool.reading() as connection:
        found = read_counts(connection)
    if as_json:
        write_json(found)
    else:
        write_table(COLUMNS, (list(one.values()) for one in found))


def _count(
    connection: pool.Connection, policy: RetentionPolicy, write: Callable[[Sequence[RetentionOutcome]], None]
) -> CandidateCounts:
    def on_found(rule: RetentionRule, found: Sequence[Candidate], held: Collection[UUID]) -> None:
        write(
            [RetentionOutcome(one.email_id, rule.name, HELD if one.email_id in held else FOUND, None) for one in found]
        )

    return Scan(policy, database_time(connection)).count(connection, on_found=on_found)


@contextmanager
def _report(path: Path | None) -> Iterator[Callable[[Sequence[RetentionOutcome]], None]]:
    if path is None:
        yield lambda _: None
        return
    with closing(BulkReport(path, REPORT, append=False)) as report:
        yield report.write


def _write(
    policy: RetentionPolicy,
    found: CandidateCounts,
    counts: Counter[tuple[str, str]],
    maximum: int,
    as_json: bool,
    *,
    dry_run: bool,
) -> None:
    """Write the numbers of contacts by rule."""
    rows: list[dict[str, Any]] = []
    for rule in policy.rules:
        row = {"rule": rule.name, "action": rule.action, FOUND: found.due[rule.name]}
        if dry_run:
            row[HELD] = found.held[rule.name]
        else:
            row |= {outcome: counts[rule.name, outcome] for outcome in OUTCOMES}
        rows.append(row)
    if as_json:
        write_json({"rules": rows, FOUND: found.due.total(), "max_contacts": maximum, "dry_run": dry_run})
        return
    write_table(tuple(rows[0]), (list(row.values()) for row in rows))
    if dry_run and found.due.total() <= maximum:
        say(f"{counted(found.due.total(), 'contact')} of at most {maximum:,}; nothing is changed")
