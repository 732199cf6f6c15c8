"""The store of documents, as a housekeeping job: filling, and checking a sample."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event

from ctms.contacts import document_store
from ctms.contacts.document_store import CheckResult
from ctms.contacts.stored_documents import is_enabled
from ctms.database.pool import Connection
from ctms.words import counted

logger = logging.getLogger(__name__)

NAME = "stored documents"
MAX_SECONDS = 300.0
"""Duration after which a run ends; the next one continues."""
SAMPLE = 200
"""Documents that each run checks."""

_PAUSE_SECONDS = 0.05
"""Pause between batches: the API has priority."""


def run(connection: Connection, stopping: Event, on_check: Callable[[CheckResult], object] = lambda _: None) -> None:
    """Store missing documents for at most `MAX_SECONDS`, then compare a sample with rendered ones.

    Documents that differ are logged, by number, and rendered again by the next run. With `CTMS_STORED_DOCUMENTS=off`
    all stored documents are removed.
    """
    if not is_enabled():
        if not document_store.empty(connection):
            logger.info("the stored documents are in use, and will be removed later")
        return
    ends = time.monotonic() + MAX_SECONDS
    stored = 0
    for result in document_store.fill_missing(connection):
        stored += result.stored
        if stopping.is_set() or time.monotonic() > ends:
            break
        stopping.wait(_PAUSE_SECONDS)
    if stored:
        logger.info("stored documents: %s", counted(stored, "contact"))
    if stopping.is_set():
        return
    found = document_store.check_and_repair(connection, SAMPLE)
    on_check(found)
    if found.different:
        logger.error(
            "%s of %s stored documents differ from rendered ones, and will be replaced", found.different, found.checked
        )
