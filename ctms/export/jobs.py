"""The exports of the API: the background service runs them one after the other, and deletes their files in time."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.contacts.sparse import FieldsError, parse_fields
from ctms.database import pool
from ctms.database.errors import describe
from ctms.database.pool import Connection
from ctms.database.storage import disk_problem
from ctms.errors import OperatorError
from ctms.export import requests
from ctms.export.formats import ZSTD, make_format
from ctms.export.requests import MAX_ATTEMPTS, BegunExport
from ctms.export.run import ExportOptions, run_export
from ctms.export.targets import PartsTarget
from ctms.outbox.lanes import EXPORT, Lane
from ctms.search.conditions import ConditionError, parse_condition
from ctms.settings import app_settings

logger = logging.getLogger(__name__)

LANE = Lane(EXPORT, "exports", 0)
"""The only lane of exports: one worker at a time drains it."""

CONNECTIONS = 2
MAX_SECONDS = 2 * 3600.0
PART_SIZE = 250_000


class _Stopped(Exception):
    """The worker stops."""


class _Ended(Exception):
    """A client has deleted the export."""


def directory_of(export_id: UUID) -> Path | None:
    """Return the directory of an export, None without `CTMS_EXPORT_DIR`."""
    folder = app_settings().export_dir
    return None if folder is None else folder / str(export_id)


def delete_files(export_id: UUID) -> None:
    """Delete the files of an export. Those that cannot be deleted now are deleted with the expired ones."""
    if (folder := directory_of(export_id)) is not None:
        shutil.rmtree(folder, ignore_errors=True)


def drain(stopping: Event) -> None:
    """Run exports until none is left or the service stops."""
    while not stopping.is_set():
        with pool.acquire() as connection:
            begun = requests.begin(connection)
        if begun is None:
            return
        _run(begun, stopping)


def _run(begun: BegunExport, stopping: Event) -> None:
    """Run an export and record its result. Raises `psycopg.OperationalError`; then it is tried again."""
    try:
        manifest = _export(begun, stopping)
    except _Stopped:
        with pool.acquire() as connection:
            requests.release(connection, begun.id)
        return
    except _Ended:
        _report_end(begun)
        return
    except psycopg.OperationalError:
        raise
    except (OperatorError, ConditionError, FieldsError, OSError, psycopg.Error) as error:
        problem = _describe(error)
        with pool.acquire() as connection:
            is_wanted = requests.fail(connection, begun.id, problem)
        if is_wanted:
            logger.error("export %s failed: %s", begun.id, problem)  # noqa: TRY400  the message says it all
        else:
            _report_end(begun)
        return
    with pool.acquire() as connection:
        is_wanted = requests.finish(connection, begun.id, manifest, app_settings().export_hours)
    if is_wanted:
        logger.info("export %s is ready", begun.id)
    else:
        _report_end(begun)


def _report_end(begun: BegunExport) -> None:
    delete_files(begun.id)
    logger.info("export %s was deleted while it ran", begun.id)


def _export(begun: BegunExport, stopping: Event) -> Mapping[str, Any]:
    """Write the files; return the manifest."""

    def check_stopping(_contacts: int, _estimate: int | None) -> None:
        if stopping.is_set():
            raise _Stopped
        if _is_ended(begun):
            raise _Ended

    if begun.attempts > MAX_ATTEMPTS:
        raise OperatorError(f"the background service ended {MAX_ATTEMPTS} times while it ran the export")
    folder = directory_of(begun.id)
    if folder is None:
        raise OperatorError("CTMS_EXPORT_DIR is not set")
    options = _options(begun.request)
    target = PartsTarget(folder, options.format, PART_SIZE, overwrite=True)
    return run_export(options, target, check_stopping).manifest


def _is_ended(begun: BegunExport) -> bool:
    """Return whether the export was ended, False if the database does not say: the export may use a replica."""
    try:
        with pool.acquire() as connection:
            return not requests.is_unfinished(connection, begun.id)
    except (psycopg.OperationalError, PoolTimeout):
        return False


def _describe(error: Exception) -> str:
    """Return why an export failed, without values."""
    match error:
        case OperatorError():
            return error.message
        case ConditionError() | FieldsError():
            return "this version of the service does not know a test or a field of the request"
        case OSError():
            return disk_problem(error) or f"a file cannot be written: {error.strerror}"
        case psycopg.Error():
            return describe(error)
    return type(error).__name__


def _options(request: Mapping[str, Any]) -> ExportOptions:
    fields, condition = request["fields"], request["filter"]
    selection = None if fields is None else parse_fields(fields)
    return ExportOptions(
        format=make_format(request["format"], selection, ZSTD),
        condition=None if condition is None else parse_condition(condition),
        connections=CONNECTIONS,
        max_seconds=MAX_SECONDS,
        described={
            "format": request["format"],
            "compression": ZSTD,
            "filter": condition,
            "fields": selection,
        },
    )


def delete_expired(connection: Connection) -> None:
    """Delete the files of exports whose time is over, and those that no export needs."""
    requests.forget_expired(connection)
    folder = app_settings().export_dir
    if folder is None or not folder.is_dir():
        return
    found = {export_id: path for path in folder.iterdir() if (export_id := _id_of(path)) is not None}
    # Read after the directories: an export is recorded before it has one.
    stored = requests.find_stored(connection, list(found))
    for export_id, path in found.items():
        if export_id not in stored:
            shutil.rmtree(path)


def _id_of(path: Path) -> UUID | None:
    try:
        export_id = UUID(path.name)
    except ValueError:
        return None
    return export_id if str(export_id) == path.name and path.is_dir() else None
