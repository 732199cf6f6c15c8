"""`flask ctms db`: a shell on the service's database."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from flask.cli import AppGroup, with_appcontext
from psycopg.conninfo import make_conninfo
from psycopg.pq import Conninfo

from ctms.current import current_app
from ctms.database.engine import database_url, release_database
from ctms.database.pool import libpq_url
from ctms.errors import OperatorError
from ctms.settings import app_settings

# libpq has no variable for these, and every user can read the command line of a process: psql prompts for what it
# needs.
_SECRET = frozenset({"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})


@click.group("db", cls=AppGroup)
def db() -> None:
    """Open a shell on the database. For its tables see `flask db`."""


@db.command("shell", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- PSQL ARGUMENTS]")
@click.pass_context
@with_appcontext
def shell(context: click.Context, arguments: Sequence[str]) -> None:
    """Open psql on the service's database, with the service's role.

    The embedded PostgreSQL includes psql, and is started if it is not running. For your own server psql must be
    installed. Arguments after `--` are passed to psql, as in `flask ctms db shell -- -c 'SELECT 1'`. Exits with the
    exit status of psql.
    """
    app = current_app()
    if app_settings().embedded:
        from ctms.database.embedded import embedded_psql  # noqa: PLC0415  an external server needs no wheel

        psql: str | Path | None = embedded_psql()
    else:
        psql = shutil.which("psql")
    if psql is None:
        raise OperatorError(
            "psql is not on the PATH: install the client programs of PostgreSQL, such as Debian's postgresql-client"
        )
    try:
        rest, variables = connection_of(libpq_url(database_url(app)()))
        command = [str(psql), *(["--dbname", rest] if rest else []), *arguments]
        context.exit(_run(command, {**os.environ, "PGAPPNAME": "ctms db shell", **variables}))
    finally:
        release_database(app)


def connection_of(url: str) -> tuple[str, dict[str, str]]:
    """Return psql's connection to a database URL: a connection string without secrets, and variables of libpq."""
    rest, variables = {}, {}
    for option in Conninfo.parse(url.encode()):
        if option.val is None:
            continue
        keyword, value = option.keyword.decode(), option.val.decode()
        if option.envvar is not None:
            variables[option.envvar.decode()] = value
        elif keyword not in _SECRET:
            rest[keyword] = value
    return make_conninfo("", **rest), variables


def _run(command: Sequence[str], environment: dict[str, str]) -> int:
    """Run a program in this terminal and return its exit status, as a shell reports it."""
    with _signals_forwarded() as processes, subprocess.Popen(command, env=environment) as process:  # noqa: S603
        processes.append(process)
        status = process.wait()
    return status if status >= 0 else 128 - status


@contextmanager
def _signals_forwarded() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Forward SIGTERM and SIGHUP to the processes in the list, and leave Ctrl-C to them: psql cancels a statement."""
    processes: list[subprocess.Popen[bytes]] = []

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Do nothing; the program would inherit a signal that is ignored (SIG_IGN)."""

    def forward(number: int, _frame: FrameType | None) -> None:
        for process in processes:
            process.send_signal(number)

    handlers = {signal.SIGINT: ignore, signal.SIGTERM: forward, signal.SIGHUP: forward}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield processes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
