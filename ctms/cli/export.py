"""`flask ctms export`: contacts as files."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import click
from flask.cli import with_appcontext

from ctms.cli import values
from ctms.cli.audit import record
from ctms.cli.bulk import Stop, Stopped
from ctms.cli.output import json_option, say, write_json, write_record
from ctms.cli.progress import Progress
from ctms.contacts.sparse import FieldsError, Selection, parse_fields
from ctms.database import pool
from ctms.errors import UnfinishedError
from ctms.export.formats import COMPRESSIONS, FORMATS, PARQUET, UNCOMPRESSED, ZSTD, make_format
from ctms.export.run import ExportOptions, ExportResult, run_export
from ctms.export.targets import FileTarget, PartsTarget, StreamTarget, Target

STANDARD_OUTPUT = "-"
MAX_CONNECTIONS = 64
_MANY_CONNECTIONS = 8
_SUFFIXES = tuple(f".{name}{zst}" for name in FORMATS for zst in ("", ".zst"))


def _parse_fields(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> Selection | None:
    names = [name.strip() for one in given for name in one.split(",") if name.strip()]
    if not given:
        return None
    try:
        return parse_fields(names)
    except FieldsError as error:
        raise click.BadParameter(str(error)) from error


@click.command("export")
@click.option("--format", "format_", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="Format.")
@click.option(
    "--output",
    required=True,
    metavar="FILE|DIR|-",
    help="Directory for parts and a manifest, or one file with a suffix such as .ndjson.zst, .csv or .parquet, or - for"
    " standard output.",
)
@click.option(
    "--filter",
    "where",
    type=values.condition,
    metavar="FILE|JSON",
    help="Export only contacts that match a condition: a file in TOML or JSON, or JSON text.",
)
@click.option(
    "--fields",
    "selection",
    multiple=True,
    callback=_parse_fields,
    metavar="NAMES",
    help="Export only these groups or members, as in email.primary_email,newsletters. Repeatable.",
)
@click.option(
    "--part-size",
    type=click.IntRange(1, 100_000_000),
    default=250_000,
    show_default=True,
    metavar="N",
    help="Contacts per part.",
)
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    help="Compression; by default zstd for parts, by its suffix for one file, and none for standard output.",
)
@click.option(
    "--connections",
    type=click.IntRange(1, MAX_CONNECTIONS),
    metavar="N",
    help=f"Database connections that export at the same time; by default one per core, at most {_MANY_CONNECTIONS}.",
)
@click.option(
    "--max-duration",
    type=values.duration,
    default="2h",
    show_default=True,
    metavar="TIME",
    help="Maximum time, as in 30m: the snapshot holds back vacuum for as long. Then the export fails.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export, or what is left of one.")
@json_option
@with_appcontext
def export(
    *,
    format_: str,
    output: str,
    where: values.GivenCondition | None,
    selection: Selection | None,
    part_size: int,
    compression: str | None,
    connections: int | None,
    max_duration: timedelta,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Export contacts to files, as they are at one instant.

    A directory gets parts (contacts-00001.ndjson.zst …) and, last of all, manifest.json: the number of contacts, the
    SHA-256 of each part, and the start of /updates that lists all later changes. An export without its manifest is
    incomplete. A single file has its manifest beside it, standard output has none. Only you can read the files.

    A condition is as in searches and retention rules: '{"mailing_country": "ca"}'.

    If it fails, is interrupted or takes longer than --max-duration, nothing of it is left.

    Exits with 3 if it was interrupted, and with 10 if the directory or file has an export, without --overwrite.
    """
    to_stream = output == STANDARD_OUTPUT
    to_file = not to_stream and output.endswith(_SUFFIXES)
    compression = _compression(format_, output, compression, to_file=to_file, to_stream=to_stream)
    chosen = make_format(format_, selection, compression)
    options = ExportOptions(
        format=chosen,
        condition=where.parsed if where else None,
        connections=connections or min(len(os.sched_getaffinity(0)), _MANY_CONNECTIONS),
        max_seconds=max_duration.total_seconds(),
        described={
            "format": format_,
            "compression": compression,
            "filter": where.data if where else None,
            "fields": selection,
        },
    )
    target: Target
    if to_stream:
        target = StreamTarget(sys.stdout.buffer, chosen)
    elif to_file:
        target = FileTarget(Path(output), chosen, overwrite=overwrite)
    else:
        target = PartsTarget(Path(output), chosen, part_size, overwrite=overwrite)
    with pool.acquire() as connection, connection.transaction():
        record(None, on=connection, format=format_, filtered=where is not None)
    result = _run(options, target)
    _write_summary(result, as_json=as_json, to_stream=to_stream)


def _compression(format_: str, output: str, given: str | None, *, to_file: bool, to_stream: bool) -> str:
    """Return the compression. Raises `UsageError` if a file's name contradicts its format or compression."""
    if not to_file:
        return given or (UNCOMPRESSED if to_stream and format_ != PARQUET else ZSTD)
    compressed = output.endswith(".zst")
    by_name = output.removesuffix(".zst").rpartition(".")[2]
    if by_name != format_:
        raise click.UsageError(f"--output {output} is the name of a file in {by_name}: pass --format {by_name}")
    if format_ == PARQUET:
        if compressed:
            raise click.UsageError("a Parquet file is compressed inside: its name ends in .parquet")
        return given or ZSTD
    if given and (given == ZSTD) != compressed:
        raise click.UsageError("the name of a file ends in .zst if it is compressed, and only then")
    return ZSTD if compressed else UNCOMPRESSED


def _run(options: ExportOptions, target: Target) -> ExportResult:
    stop = Stop()
    try:
        with stop.handle_signals(), Progress("contacts") as progress:
            return run_export(options, target, progress.at)
    except Stopped:
        raise UnfinishedError("stopped: nothing of the export is left; run it again") from None


def _write_summary(result: ExportResult, *, as_json: bool, to_stream: bool) -> None:
    follow = result.manifest["updates"]["path"]
    if to_stream:
        say(f"contacts: {result.manifest['contacts']:,}; later changes: {follow}")
    elif as_json:
        write_json(result.manifest)
    else:
        write_record(
            {
                "contacts": result.manifest["contacts"],
                "parts": len(result.files),
                "bytes": sum(one.bytes for one in result.files),
                "later changes": follow,
            }
        )
