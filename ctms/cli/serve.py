"""`flask ctms serve`: the service, ready to use."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from types import FrameType
from typing import Any

import click
import psycopg
from flask import Flask
from flask.cli import with_appcontext
from granian.constants import HTTPModes, Interfaces
from granian.log import LogLevels
from granian.server import Server
from granian.server.common import AbstractServer

from ctms.cli.actor import current_actor
from ctms.cli.first_requests import first_requests
from ctms.cli.output import say_problems, say_warning
from ctms.cli.setting_options import is_given, setting_option
from ctms.clients.registry import create_first_client
from ctms.current import current_app
from ctms.database import pool
from ctms.database.engine import release_database
from ctms.database.generated_secrets import erasure_key, secret_key
from ctms.database.migrations import check_migrated, upgrade
from ctms.database.operator_errors import check_reachable
from ctms.errors import OperatorError
from ctms.settings import Settings, app_settings
from ctms.suppression.fingerprints import KEY_MISSING
from ctms.sync import known_receivers
from ctms.telemetry.slots import DIRECTORY_VARIABLE, run_directory

SHUTDOWN_TIMEOUT_IN_SECONDS = 30
_LISTEN_INTERVAL_IN_SECONDS = 0.05

_WELCOME = """\
This is the first start. An API client with the role `admin` was created; its secret is shown only once:

  client id:      {client_id}
  client secret:  {secret}

Try it:

{example}"""


@click.command()
@setting_option("--host", "host", "ADDRESS", "Address to bind.")
@setting_option("--port", "port", "NUMBER", "Port to bind.")
@setting_option("--workers", "workers", "NUMBER", "Number of processes.")
@setting_option("--data-dir", "data_dir", "FOLDER", "Folder of the embedded database and its keys.")
@click.pass_context
@with_appcontext
def serve(context: click.Context) -> None:
    """Serve the API on HOST:PORT, with an embedded PostgreSQL unless CTMS_DB_URL names a server.

    The embedded database is migrated, and the first start creates an API client and prints its secret. Your own server
    must be migrated already (`flask db upgrade`). On Ctrl-C and SIGTERM, the requests in flight are finished.
    """
    settings = app_settings()
    if is_given(context, "data_dir") and not settings.embedded:
        raise click.UsageError(
            "--data-dir applies to the embedded database, but CTMS_DB_URL names a server: choose one"
        )
    app = current_app()
    signal.signal(signal.SIGTERM, _leave)
    try:
        with _reserved_port(settings):
            _prepare_database(settings)
            say_problems()
            _warn_of_missing_receivers()
            _serve(app, settings)
    except KeyboardInterrupt:
        pass
    finally:
        release_database(app)


def _prepare_database(settings: Settings) -> None:
    if not settings.embedded:
        check_reachable()
        _check_migrated()
        if not settings.has_erasure_key:
            say_warning(KEY_MISSING)
        return
    click.echo(f"CTMS: embedded PostgreSQL in {settings.data_dir}")
    upgrade()
    _check_migrated()
    made = create_first_client(current_actor())
    if made is not None:
        client_id, secret = made
        example = first_requests(_url(settings), client_id, secret)
        click.echo(_WELCOME.format(client_id=client_id, secret=secret, example=example))


def _check_migrated() -> None:
    for warning in check_migrated():
        say_warning(warning)


def _warn_of_missing_receivers() -> None:
    with pool.acquire() as connection:
        with suppress(psycopg.errors.ReadOnlySqlTransaction):  # a standby: reads are served nevertheless
            known_receivers.record(connection)
        if problem := known_receivers.describe_missing(connection):
            say_warning(f"{problem}; set the variables of its plugin, unless it is no longer used")


def _serve(app: Flask, settings: Settings) -> None:
    with run_directory() as metrics:
        # Each worker process creates its own app from the environment.
        os.environ[DIRECTORY_VARIABLE] = str(metrics)
        if settings.embedded:
            os.environ["CTMS_DB_URL"] = app.extensions["ctms.embedded"]()
            os.environ["CTMS_SECRET_KEY"] = secret_key(settings)
            os.environ["CTMS_ERASURE_KEY"] = erasure_key(settings) or ""
        multiprocessing.set_start_method("spawn", force=True)
        server = granian("ctms.cli.serving_process:worker_app", settings)
        with _announced(settings):
            server.serve()


@contextmanager
def _announced(settings: Settings) -> Iterator[None]:
    """Announce in the block that the service is ready as soon as one of its processes listens."""
    ended = threading.Event()

    def announce() -> None:
        while not ended.wait(_LISTEN_INTERVAL_IN_SECONDS):
            if _is_listening(settings):
                processes = "1 process" if settings.workers == 1 else f"{settings.workers} processes"
                click.echo(f"CTMS: serving on {_url(settings)} with {processes}; docs at {_url(settings)}/docs")
                sys.stdout.flush()
                return

    thread = threading.Thread(target=announce, name="announce", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_listening(settings: Settings) -> bool:
    family, _, _, _, address = _address(settings)
    if ip_address(address[0]).is_unspecified:
        address = ("::1" if family == socket.AF_INET6 else "127.0.0.1", *address[1:])
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        return probe.connect_ex(address) == 0


def granian(factory: str, settings: Settings) -> AbstractServer[Any]:
    """Return Granian, not started yet, for the app that `factory` (`module:function`) creates in each process."""
    return Server(
        factory,
        factory=True,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=settings.workers,
        blocking_threads=settings.threads,
        backlog=2048,
        workers_kill_timeout=SHUTDOWN_TIMEOUT_IN_SECONDS,
        respawn_failed_workers=True,
        log_level=LogLevels.error,
    )


def _url(settings: Settings) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _address(settings: Settings) -> tuple[Any, ...]:
    """Return the result of `getaddrinfo` for HOST and PORT. Raises `OperatorError` if the host has no address."""
    try:
        return socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # the latter if it is no host name at all
        raise OperatorError(f"HOST {settings.host} cannot be resolved") from error


@contextmanager
def _reserved_port(settings: Settings) -> Iterator[None]:
    """Reserve the port, so that one of two concurrent starts fails. The workers also bind it, with SO_REUSEPORT."""
    family, _, _, _, address = _address(settings)
    with socket.socket(family, socket.SOCK_STREAM) as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closing connections do not matter
        try:
            reserved.bind(address)
            reserved.listen(0)  # otherwise Linux lets two sockets with SO_REUSEADDR share a port
        except OSError as error:
            raise OperatorError(
                f"port {settings.port} on {settings.host} cannot be used ({error.strerror});"
                " set --port or PORT to another"
            ) from error
        if sys.platform == "linux":
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            reserved.shutdown(socket.SHUT_RDWR)  # reserves the port, and accepts no connections
        else:
            reserved.close()
        yield


def _leave(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
