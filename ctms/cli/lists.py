"""Shared code of the commands that read lists: column options, and reports of bad lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import click

from ctms.bulk import lists
from ctms.bulk.columns import ReadOptions
from ctms.bulk.entries import Entry, resolve_entries
from ctms.cli import values
from ctms.cli.output import say
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import ListError, UnfinishedError

F = TypeVar("F", bound=Callable[..., Any])

MAX_LINES = 20
"""Number of bad lines that are shown."""


def column_option(command: F) -> F:
    """Add `--column` to a command, which takes it as `wanted`."""
    return click.option(
        "--column",
        "wanted",
        type=values.column_name,
        callback=lambda _context, _parameter, name: ReadOptions(name),
        metavar="NAME",
        help="Column with the addresses, if it has no standard name. Also a member of JSON.",
    )(command)


def opt_out_column_options(command: F) -> F:
    """Add `--column`, `--date-column` and `--reason-column` to a command."""
    for name, what in (("reason", "reasons"), ("date", "dates"), ("", "addresses")):
        command = click.option(
            f"--{name}-column" if name else "--column",
            type=values.column_name,
            metavar="NAME",
            help=f"Column with the {what}, if it has no standard name. Also a member of JSON.",
        )(command)
    return command


def read_lists(files: Sequence[BinaryIO], wanted: ReadOptions) -> Iterator[Entry]:
    """Yield the entries of several lists, not yet settled; problems then also name the list.

    An empty list is reported. Raises `ListError`.
    """
    return _remark_if_empty(lists.read(files[0], wanted)) if len(files) == 1 else _read_each(files, wanted)


def _remark_if_empty(entries: Iterator[Entry], name: str | None = None) -> Iterator[Entry]:
    is_empty = True
    for entry in entries:
        is_empty = False
        yield entry
    if is_empty:
        say(f"{name}: the list is empty" if name else "the list is empty")


def _read_each(files: Iterable[BinaryIO], wanted: ReadOptions) -> Iterator[Entry]:
    for file in files:
        name = Path(file.name).name
        try:
            for entry in _remark_if_empty(lists.read(file, wanted), name):
                yield entry._replace(problem=f"{entry.problem} ({name})") if entry.problem else entry
        except ListError as error:
            raise ListError(f"{name}: {error.message}") from None


class ListReader:
    """Reads the addresses of a list in batches; shows the first bad lines and counts all."""

    def __init__(self, file: BinaryIO, wanted: ReadOptions, connection: Connection | None = None) -> None:
        self._entries = _remark_if_empty(lists.read(file, wanted))
        self._connection = connection
        self.read = 0
        """Number of entries so far."""
        self.bad = 0
        """Number of bad lines among them."""
        self._end: str | None = None

    def batches(self, size: int) -> Iterator[list[str]]:
        """Yield the addresses in batches of `size` entries.

        Raises `ListError` for what is no list. `check` reports a list that ends too early, such as a damaged file.
        """
        try:
            while entries := list(islice(self._entries, size)):
                self.read += len(entries)
                yield self._addresses(entries)
        except ListError as error:
            if not self.read:
                raise
            self._end = (
                f"{error.message}; the rest of the list was not read, and the last entries before it are not processed:"
                " run it again with the whole list"
            )

    def check(self) -> None:
        """Raise `UnfinishedError` if lines were bad or the list ended too early."""
        problems = [f"skipped bad lines: {self.bad:,}"] if self.bad else []
        if self._end:
            problems.append(self._end)
        if problems:
            raise UnfinishedError("; ".join(problems))

    def _addresses(self, entries: list[Entry]) -> list[str]:
        if any(entry.given for entry in entries):
            with nullcontext(self._connection) if self._connection else pool.reading() as connection:
                entries = resolve_entries(connection, entries)
        for entry in entries:
            if entry.problem:
                self.bad += 1
                if self.bad <= MAX_LINES:
                    say(f"line {entry.line}: {entry.problem}")
        return [entry.address for entry in entries if entry.address is not None]
