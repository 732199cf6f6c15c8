"""Logs: MozLog JSON (or text), with one `request.summary` per request and without personal data.

An exception is logged with its class and its traceback, never with its message: messages of drivers and libraries
repeat the values that caused the error.
"""

from __future__ import annotations

import json
import logging
import os
import select
import stat
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from types import TracebackType
from typing import Any

from dockerflow.logging import MozlogFormatter
from flask import has_request_context

from ctms.request_context import find_request_context
from ctms.settings import Settings
from ctms.telemetry.requests import RequestLabels, RequestRecord

summary_logger = logging.getLogger("request.summary")

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def anonymize_traceback(error: BaseException) -> str:
    """Return the traceback of an error with the classes of the exceptions instead of their messages."""
    lines = []
    chained = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if chained is not None:
        lines += [anonymize_traceback(chained), "which led to"]
    frames = traceback.format_list(traceback.extract_tb(error.__traceback__))
    kind = type(error)
    return "\n".join([*lines, "".join(frames).rstrip(), f"{kind.__module__}.{kind.__qualname__}"])


class TextFormatter(logging.Formatter):
    """Formats records as readable lines, for terminals."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  logging's name
        return anonymize_traceback(ei[1])

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler may have stored its own text of the exception here
        if isinstance(record, SummaryRecord):
            return "\n".join(self._lines(record))
        line, *traceback_lines = super().format(record).split("\n", 1)
        return "\n".join([_with_fields(line, _request_id()), *traceback_lines])

    def _lines(self, record: SummaryRecord) -> Iterator[str]:
        for request in record.requests:
            record.set_time(request)
            fields = {**_fields(request.labels), "t": int(request.seconds * 1000), "rid": request.request_id}
            yield _with_fields(super().format(record), fields)


def _with_fields(line: str, fields: dict[str, Any]) -> str:
    return " ".join([line, *(f"{name}={value}" for name, value in fields.items())])


class MozLogFormatter(MozlogFormatter):  # type: ignore[misc]
    """Formats records as MozLog JSON (Dockerflow's formatter)."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record, SummaryRecord):
            return str(super().format(record))
        process = record.process
        return "\n".join(
            [
                # A request id contains nothing that JSON would have to escape.
                f'{{"Timestamp": {int(answered_at * 1e9)}, {self._shared_json(process, labels)}'
                f', "t": {int(seconds * 1000)}, "rid": "{request_id}"}}}}'
                for labels, seconds, request_id, answered_at, *_ in record.requests
            ]
        )

    # Encoding the same JSON again took longer than the rest of logging. The cache is limited because senders choose
    # their user agents.
    @lru_cache(maxsize=1024)  # noqa: B019  one formatter per process
    def _shared_json(self, process: int, labels: RequestLabels) -> str:
        """Return the JSON that summaries with these labels share, without its beginning and its end."""
        found: dict[str, Any] = super().convert_record(SummaryRecord((), process))
        del found["Timestamp"]
        return json.dumps(found | {"Fields": _fields(labels)})[1:-2]

    def convert_record(self, record: logging.LogRecord) -> dict[str, Any]:
        error, record.exc_info, record.exc_text = record.exc_info, None, None
        found: dict[str, Any] = super().convert_record(record)
        record.exc_info = error  # others, such as Sentry, read the record after us
        found["Fields"].update(_request_id())
        if error and error[1] is not None:
            found["Fields"]["error"] = type(error[1]).__qualname__
            found["Fields"]["traceback"] = anonymize_traceback(error[1])
        return found


def _request_id() -> dict[str, str]:
    """Return the field with the id of the current request, empty outside a request."""
    context = find_request_context() if has_request_context() else None
    return {"rid": context.request_id} if context else {}


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
    # psycopg's warnings repeat the server's message, which repeats values; the error itself is raised anyway.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)
    logging.getLogger("ctms.database.pool.Pool").setLevel(logging.WARNING)  # SQLAlchemy's lines about each connection
    # werkzeug's line per request, with `flask run`, contains the path, which may be an address.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    logging.getLogger("sqlalchemy.engine").setLevel("INFO" if settings.log_sqlalchemy else "WARNING")
    _init_sentry(settings)


class StderrHandler(logging.Handler):
    """Writes each record with one system call, which the kernel does not interleave with those of other processes."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  logging's own error report would repeat the values
            line = f"a record of {record.name} could not be formatted"
        written = f"{line}\n".encode(errors="backslashreplace")
        with suppress(OSError):  # a request must not fail because standard error is closed
            for block in _atomic_blocks(written) if isinstance(record, SummaryRecord) else (written,):
                os.write(2, block)


def _atomic_blocks(lines: bytes) -> Iterator[bytes]:
    """Yield the lines in blocks that the kernel writes without interleaving: all lines at once, for a file."""
    max_size = len(lines) if stat.S_ISREG(os.fstat(2).st_mode) else select.PIPE_BUF
    start = 0
    while len(lines) - start > max_size:
        end = lines.rfind(b"\n", start, start + max_size) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
    yield lines[start:]


def _init_sentry(settings: Settings) -> None:
    if settings.sentry_dsn:
        import sentry_sdk  # noqa: PLC0415  most commands and installations do without, and it takes long to import

        sentry_sdk.init(
            dsn=settings.sentry_dsn,
            debug=settings.sentry_debug,
            send_default_pii=False,
            include_local_variables=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            before_send=anonymize_event,
        )


# The fields of events and of stack frames that Sentry may receive. All others may hold values of a request.
_EVENT_FIELDS = frozenset(
    {"event_id", "timestamp", "level", "platform", "logger", "transaction", "transaction_info", "release"}
    | {"environment", "server_name", "sdk", "modules"}
)
_FRAME_FIELDS = frozenset(
    {"filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line", "post_context", "in_app"}
)


def anonymize_event(event: Any, hint: dict[str, Any]) -> Any:
    """Return a Sentry event without personal data: exception classes, code, and the request's id.

    Messages, URL, query, headers and variables are removed.
    """
    found = {name: value for name, value in event.items() if name in _EVENT_FIELDS}
    if "exception" in event:
        found["exception"] = {"values": [_anonymize_exception(one) for one in event["exception"].get("values", [])]}
    if "request" in event:
        found["request"] = {"method": event["request"].get("method", "")}
    found["tags"] = _request_id() if "log_record" in hint else {}
    return found


def _anonymize_exception(error: dict[str, Any]) -> dict[str, Any]:
    frames = (error.get("stacktrace") or {}).get("frames", [])
    return {
        "type": error.get("type"),
        "module": error.get("module"),
        "stacktrace": {"frames": [{k: v for k, v in frame.items() if k in _FRAME_FIELDS} for frame in frames]},
    }


class SummaryRecord(logging.LogRecord):
    """The log record of many answered requests, with one line for each."""

    def __init__(self, requests: Sequence[RequestRecord], process: int | None = None) -> None:
        super().__init__(summary_logger.name, logging.INFO, "", 0, "", (), None)
        self.requests = requests
        self.process = process or self.process
        if requests:
            self.set_time(requests[-1])

    def set_time(self, request: RequestRecord) -> None:
        """Set the time of the record to that of a request."""
        self.created = request.answered_at
        self.msecs = request.answered_at % 1 * 1000


def log_summaries(requests: Sequence[RequestRecord]) -> None:
    """Log one line for each of the requests."""
    if summary_logger.isEnabledFor(logging.INFO):
        summary_logger.handle(SummaryRecord(requests))


def _fields(labels: RequestLabels) -> dict[str, Any]:
    """Return the fields of a summary, without the duration and the id of the request."""
    fields: dict[str, Any] = {
        "agent": labels.agent,
        "path": labels.path_template,
        "method": labels.method,
        "code": labels.status,
        "uid": labels.client_id or "",
    }
    if labels.client_id is not None:
        fields["client_id"] = labels.client_id
        fields["client_allowed"] = labels.client_allowed
    if labels.auth_failure is not None:
        fields["auth_fail"] = labels.auth_failure.value
    if labels.token_failure is not None:
        fields["token_fail"] = labels.token_failure.value
    return fields
