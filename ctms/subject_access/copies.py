"""The backends' copies of the contacts in reports: the background service reads them, never a request."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from threading import Event
from typing import Any, NamedTuple
from uuid import UUID

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import OperatorError
from ctms.hooks.receivers import Backend, Fetches
from ctms.outbox.changes import outbox
from ctms.outbox.lanes import ACCESS, Lane
from ctms.subject_access import requests
from ctms.sync.fetch import Fetch

logger = logging.getLogger(__name__)

LANE = Lane(ACCESS, "copies", 0)
"""The only lane of access requests: one worker at a time drains it."""

FOUND, MISSING, FAILED, PENDING, UNSUPPORTED = "found", "missing", "failed", "pending", "unsupported"
STATUSES = (FOUND, MISSING, FAILED, PENDING, UNSUPPORTED)
"""The backend has a copy; it has none; it could not be read; it is yet to be read; the backend has no `fetch`."""


class Copy(NamedTuple):
    """A backend's copy of a contact, as JSON text, and its status."""

    status: str
    text: str


def initial_copies() -> dict[str, Copy | None]:
    """Return a contact's copies by backend: None for one that is to be read."""
    return {
        name: None if isinstance(backend.implementation, Fetches) else make_copy(name, UNSUPPORTED)
        for name, backend in outbox().backends.items()
    }


def make_copy(backend: str, status: str, *, data: Any = None, error: str | None = None) -> Copy:
    """Return a copy. Raises `ValueError`, `TypeError` or `RecursionError` if JSON cannot hold the data."""
    fetched_at = datetime.now(UTC).isoformat(timespec="microseconds") if status in {FOUND, MISSING, FAILED} else None
    copy = {"backend": backend, "status": status, "fetched_at": fetched_at, "error": error, "data": data}
    return Copy(status, json.dumps(copy, allow_nan=False, default=str))


def read_all(email_ids: Sequence[UUID]) -> dict[UUID, dict[str, Copy]]:
    """Return the copies of the contacts, by backend."""
    found: dict[UUID, dict[str, Copy]] = {one: {} for one in email_ids}
    for name, initial in initial_copies().items():
        of_backend = dict.fromkeys(email_ids, initial) if initial else read_copies(outbox().backends[name], email_ids)
        for email_id, copy in of_backend.items():
            found[email_id][name] = copy
    return found


def read_copies(backend: Backend, email_ids: Sequence[UUID]) -> dict[UUID, Copy]:
    """Return the backend's copies of the contacts; errors are part of the copies, and logged.

    An error is described without its message, which may contain values.
    """
    found: dict[UUID, Copy] = {}
    for start in range(0, len(email_ids), backend.max_batch):
        batch = email_ids[start : start + backend.max_batch]
        try:
            answer = Fetch(backend)([str(one) for one in batch])
            found |= {one: _copy_of(backend.name, answer.get(str(one))) for one in batch}
        except OperatorError as error:
            logger.warning("a copy for an access request could not be read: %s", error.message)
            found |= {one: make_copy(backend.name, FAILED, error=error.message) for one in batch}
    return found


def _copy_of(backend: str, data: Mapping[str, Any] | None) -> Copy:
    if data is None:
        return make_copy(backend, MISSING)
    try:
        return make_copy(backend, FOUND, data=_plain(data))
    except (TypeError, ValueError, RecursionError):
        raise OperatorError(f"`fetch` of the backend {backend} returned what JSON cannot hold") from None


def _plain(value: Any) -> Any:
    """Return mappings and sequences of any type as those of JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def is_due(connection: Connection) -> bool:
    """Return whether a copy is to be read from a backend of this app."""
    return bool(requests.pending_copies(connection, outbox().names, limit=1))


def drain(stopping: Event) -> None:
    """Read the pending copies, until none is left or the service stops."""
    with pool.acquire() as connection:
        pending = requests.pending_copies(connection, outbox().names)
    for request_id, backend, email_ids in pending:
        if stopping.is_set():
            return
        copies = read_copies(outbox().backends[backend], email_ids)
        with pool.acquire() as connection:
            for email_id, copy in copies.items():
                requests.store_copy(connection, request_id, email_id, backend, copy.text, failed=copy.status == FAILED)
