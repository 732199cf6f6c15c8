"""`flask ctms worker`: the background service."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from wsgiref.simple_server import WSGIServer

import click
from flask.cli import with_appcontext
from prometheus_client import push_to_gateway, start_http_server

from ctms.cli.output import say, say_problems, say_warning
from ctms.cli.receivers import unsynchronised
from ctms.current import current_app
from ctms.database import pool
from ctms.database.engine import release_database
from ctms.database.migrations import check_migrated, upgrade
from ctms.database.operator_errors import check_reachable
from ctms.errors import OperatorError, UnfinishedError
from ctms.outbox.lanes import BACKEND, QUEUES
from ctms.retention.policy import read_configured_policy
from ctms.settings import Settings, app_settings
from ctms.sync import known_receivers
from ctms.sync.synchronised import find_unsynchronised, record_complete
from ctms.words import counted
from ctms.worker.metrics import WorkerMetrics
from ctms.worker.service import BackgroundService, WorkerOptions
from ctms.worker.summary import Summary

logger = logging.getLogger(__name__)

_NICENESS = 10
"""The API on the same machine has priority, however large the backlog is."""


@click.command()
@click.option(
    "--concurrency", type=click.IntRange(1, 64), help="Number of lanes drained concurrently; overrides the setting."
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    type=click.Choice(sorted(set(QUEUES.values()))),
    help="Work only for backends, erasures or exports; by default for all. Repeatable.",
)
@click.option("--once", is_flag=True, help="Exit when nothing is due, and print a summary.")
@with_appcontext
def worker(concurrency: int | None, queues: tuple[str, ...], once: bool) -> None:
    """Run the background service: push contacts to backends, and call deletion handlers.

    Any number of workers may run, on any number of machines. Ctrl-C and SIGTERM end it after the batches in flight; if
    one is killed, others take over its batches. It survives outages of the database.

    At the start it names backends that were never synchronised: `backends resync NAME --all` pushes the contacts from
    before the backend.

    With --once it exits with 3 if contacts were parked or will be retried.
    """
    settings = app_settings()
    app = current_app()
    if settings.retention_file is not None:
        read_configured_policy()  # an invalid file would otherwise be noticed a week later
    try:
        if settings.embedded:
            upgrade()
        else:
            check_reachable()
        for warning in check_migrated():
            say_warning(warning)
        os.nice(_NICENESS)  # now: it must not inherit the embedded server that was started here
        options = WorkerOptions(concurrency or settings.worker_concurrency, queues or None, once)
        service = BackgroundService(app, options, _publisher(settings))

        def end(_signal: int, _frame: FrameType | None) -> None:
            service.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        server = _serve_metrics(settings, service)
        say_problems()
        _warn_of_unsynchronised(service)
        say(f"CTMS: working for {_receivers(service)}")
        sys.stderr.flush()
        try:
            service.run()
        finally:
            if server is not None:
                server.shutdown()
            if service.summary is not None:
                _say_summary(service.summary)
        if service.summary is not None and service.summary.failed:
            raise UnfinishedError(_failed(service.summary.failed))
    finally:
        release_database(app)


def _receivers(service: BackgroundService) -> str:
    found = sorted({f"{lane.kind.replace('_', ' ')} {lane.name}" for lane in service.lanes})
    if service.runs_exports:
        found.append("exports")
    return ", ".join(found) or "no receivers: no plugin registers a backend or a deletion handler"


def _warn_of_unsynchronised(service: BackgroundService) -> None:
    names = sorted({lane.name for lane in service.lanes if lane.kind == BACKEND})
    with pool.acquire() as connection:
        known_receivers.record(connection)
        record_complete(connection, names)
        for name in find_unsynchronised(connection, names):
            say_warning(unsynchronised(name))


def _say_summary(summary: Summary) -> None:
    for line in list(summary.lines()) or ["nothing was due"]:
        say(f"CTMS: {line}")


def _failed(number: int) -> str:
    return f"{counted(number, 'contact')} parked or to be tried again: see `flask ctms backends list`"


def _serve_metrics(settings: Settings, service: BackgroundService) -> WSGIServer | None:
    if settings.worker_metrics_port is None:
        return None
    try:
        server, _ = start_http_server(settings.worker_metrics_port, settings.host, registry=service.metrics.registry)
    except OSError as error:
        raise OperatorError(
            f"port {settings.worker_metrics_port} on {settings.host} cannot be used ({error.strerror});"
            " set CTMS_WORKER_METRICS_PORT to another"
        ) from error
    return server


def _publisher(settings: Settings) -> Callable[[WorkerMetrics], None]:
    url = settings.pushgateway_url
    if url is None:
        return lambda _: None

    def push(metrics: WorkerMetrics) -> None:
        try:
            push_to_gateway(
                url, "ctms_worker", metrics.registry, grouping_key={"instance": socket.gethostname()}, timeout=5
            )
        except Exception as error:  # noqa: BLE001  whatever a gateway answers is no reason to stop work
            logger.warning("metrics were not pushed: %s", type(error).__name__)

    return push
