"""Logs: MozLog JSON (or text), one `request.summary` per request, and nothing of a person in any of it.

An exception is logged with its kind and its traceback, never with its message: messages of drivers and libraries
repeat the values that they stumbled over.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

import sentry_sdk
from dockerflow.logging import MozlogFormatter

from ctms.settings import Settings
from ctms.telemetry.requests import Finished

summary_logger = logging.getLogger("request.summary")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def anonymous_traceback(error: BaseException) -> str:
    """Return the traceback with the kinds of the exceptions instead of their messages."""
    lines = []
    chained = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if chained is not None:
        lines += [anonymous_traceback(chained), "which led to"]
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    kind = type(error)
    return "\n".join([*lines, "".join(frames).rstrip(), f"{kind.__module__}.{kind.__qualname__}"])


class TextFormatter(logging.Formatter):
    """Readable lines, for terminals."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        return anonymous_traceback(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler may have kept its own text of the exception there
        fields = getattr(record, "summary", None)
        line = super().format(record)
        return line + " " + " ".join(f"{k}={v}" for k, v in fields.items()) if fields else line


class MozLogFormatter(MozlogFormatter):  # type: ignore[misc]
    """MozLog's JSON (Dockerflow's formatter)."""

    def convert_record(self, record: logging.LogRecord) -> dict[str, Any]:
        error, record.exc_info, record.exc_text = record.exc_info, None, None
        fields = record.__dict__.pop("summary", None)
        found: dict[str, Any] = super().convert_record(record)
        record.exc_info = error  # others, such as Sentry, read the record after us
        found["Fields"].update(fields or {})
        if error and error[1] is not None:
            found["Fields"]["error"] = type(error[1]).__qualname__
            found["Fields"]["traceback"] = anonymous_traceback(error[1])
        return found


def init_logs(settings: Settings) -> None:
    """Set up logging and Sentry for the process."""
    formatter = (
        MozLogFormatter(logger_name="ctms")
        if settings.use_mozlog
        else TextFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, StderrHandler)]:
        root.removeHandler(handler)
    handler = StderrHandler()
    handler.setFormatter(formatter)
    root.addHandler(handler)
    for name in ("ctms", summary_logger.name):
        logging.getLogger(name).setLevel(settings.logging_level)
    # Its warnings repeat what the server says of an error, and that repeats values; the error itself reaches us.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    logging.getLogger("sqlalchemy.engine").setLevel("INFO" if settings.log_sqlalchemy else "WARNING")
    _init_sentry(settings)


class StderrHandler(logging.Handler):
    """Writes each record with one system call, which the kernel does not mix with others.

    So it needs no lock: threads would queue at it, each while the one before waits for its system call.
    """

    def createLock(self) -> None:  # noqa: N802  logging's name
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  logging's own way to report it would repeat the values
            line = f"a record of {record.name} could not be formatted"
        with suppress(OSError):  # nobody reads standard error any more: that is no reason to fail a request
            os.write(2, f"{line}\n".encode(errors="backslashreplace"))


def _init_sentry(settings: Settings) -> None:
    if settings.sentry_dsn:
        sentry_sdk.init(
            dsn=settings.sentry_dsn,
            debug=settings.sentry_debug,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=anonymous_event,
        )


def anonymous_event(event: Any, _hint: dict[str, Any]) -> Any:
    """Drop from a Sentry event what may hold a person's data: messages, URL, query, headers, variables."""
    for error in event.get("exception", {}).get("values", []):
        error.pop("value", None)
        for frame in error.get("stacktrace", {}).get("frames", []):
            frame.pop("vars", None)
    event.pop("logentry", None)
    event.pop("message", None)
    event.pop("breadcrumbs", None)
    event["request"] = {"method": event.get("request", {}).get("method", "")}
    event.pop("user", None)
    event.pop("extra", None)
    return event


def log_summary(finished: Finished) -> None:
    """Log one line about a request."""
    if not summary_logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, Any] = {
        "agent": _agent(finished.agent),
        "path": finished.path_template,
        "method": finished.method,
        "code": finished.status,
        "t": int(finished.seconds * 1000),
        "rid": finished.request_id,
    }
    if finished.client_id is not None:
        fields["client_id"] = finished.client_id
    # Without `makeRecord`'s caller: finding out who logs takes longer than all the rest.
    record = logging.LogRecord(summary_logger.name, logging.INFO, "", 0, "", (), None)
    record.summary = fields
    summary_logger.handle(record)


def _agent(agent: str) -> str:
    """Return the client's name for itself, without any address in it."""
    return re.sub(r"\S*@\S*", "…", agent[:200]) if "@" in agent else agent[:200]
