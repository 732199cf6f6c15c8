"""Output of commands: data on standard output, as text or as JSON for scripts; remarks on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ctms.errors import OperatorError
from ctms.telemetry.health import find_problems

if TYPE_CHECKING:
    from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

# Wide enough for any row: readers of a pipe expect one line per row.
_PIPE_WIDTH = 100_000


def json_option(command: F) -> F:
    """Add `--json` to a command, which takes it as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, for scripts.")(command)


def yes_option(command: F) -> F:
    """Add `--yes` to a command, which takes it as `yes` and passes it to `confirm`."""
    return click.option("--yes", is_flag=True, help="Do not ask.")(command)


def write_json(data: Any) -> None:
    """Write JSON to standard output; times as ISO 8601."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=_plain))


def write_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table with a heading: fitted to a terminal, unwrapped anywhere else."""
    from rich.table import Table  # noqa: PLC0415  commands without a table do without

    _write(Table(*columns, box=None, pad_edge=False, header_style="bold"), rows)


def write_record(record: Mapping[str, Any]) -> None:
    """Write one object, a line for each of its members."""
    from rich.table import Table  # noqa: PLC0415

    rows = [(f"{name}:", value) for name, value in record.items()]
    _write(Table(box=None, show_header=False, pad_edge=False), rows)


def write_done(name: str, data: Any, remark: str, as_json: bool) -> None:
    """Write what a command has changed: its name, with the change as a remark, or the data as JSON."""
    if as_json:
        write_json(data)
    else:
        click.echo(name)
        say(remark)


def say_warning(problem: str) -> None:
    """Write a problem that does not stop the service."""
    say(f"CTMS: warning: {problem}")


def say(remark: str) -> None:
    """Write a remark to standard error."""
    click.echo(remark, err=True)


def say_problems() -> None:
    """Write the problems found by health checks of plugins to standard error: they do not prevent the start."""
    for problem in find_problems():
        say_warning(problem)


def confirm(question: str, yes: bool) -> None:
    """Ask for confirmation, unless `yes`.

    Raises `OperatorError` if there is no terminal, and `click.Abort` if the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise OperatorError(f"{question} There is no terminal for the confirmation: pass --yes")
    click.confirm(question, abort=True, err=True)


def names(found: Iterable[str]) -> str:
    """Return names as an enumeration for a sentence."""
    return ", ".join(found)


def _write(table: Table, rows: Iterable[Sequence[Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    for row in rows:
        table.add_row(*(Text(cell_text(value)) for value in row))
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    with console.capture() as captured:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def cell_text(value: Any) -> str:
    """Return a value as people read it in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, (list, tuple)):
        return names(map(str, value)) or "-"
    return str(value)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
