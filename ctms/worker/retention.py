"""The weekly run of the retention rules, as a housekeeping job."""

from __future__ import annotations

import logging
from threading import Event

from ctms.database.pool import Connection
from ctms.errors import OperatorError
from ctms.retention import runs
from ctms.retention.policy import read_configured_policy
from ctms.retention.run import InterruptedRunError, RunOptions, RunResult, apply_rules
from ctms.settings import app_settings
from ctms.sync.known_receivers import describe_missing
from ctms.words import counted

logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 0.05
"""Pause between batches: the API has priority."""


def run_if_due(connection: Connection, stopping: Event) -> None:
    """Apply the retention rules if a week has passed since the last run, and log the result.

    Without `CTMS_RETENTION_FILE` it does nothing. Nor does it without the plugin of a backend or deletion handler that
    the database knows: that system would keep its data. It ends after the current batch when `stopping` is set; the
    next worker continues. Raises errors of the database.
    """
    if app_settings().retention_file is None or not runs.is_due(connection):
        return
    if problem := describe_missing(connection):
        runs.record_failure(connection)
        logger.error("no retention rules were applied: %s; see `flask ctms backends forget`", problem)
        return
    try:
        policy = read_configured_policy()
    except OperatorError as error:
        runs.record_failure(connection)
        logger.error("no retention rules were applied: %s", error.message)  # noqa: TRY400  the message says it all
        return

    def stop_if_asked() -> None:
        if stopping.is_set():
            raise InterruptedRunError

    options = RunOptions(by=runs.WORKER, maximum=policy.max_contacts, pause=_PAUSE_SECONDS, on_window=stop_if_asked)
    try:
        result = apply_rules(connection, policy, options)
    except InterruptedRunError:
        logger.info("the retention run is interrupted; the next worker continues")
        return
    level = logging.INFO if result.outcome == runs.DONE else logging.ERROR
    logger.log(level, "retention: %s", _describe(result, policy.max_contacts))


def _describe(result: RunResult, maximum: int) -> str:
    if result.outcome == runs.OVER_MAX:
        return f"the rules match more contacts than the maximum of {maximum:,}: nothing is erased"
    numbers = result.numbers
    words = [
        f"{counted(numbers[name], 'contact')} {name}" for name in ("erased", "anonymised", "failed") if numbers[name]
    ]
    return ", ".join(words) or "no contact to erase"
