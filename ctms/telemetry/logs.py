"""Logs: MozLog JSON (or text), one `request.summary` per request, and nothing of a person in any of it.

An exception is logged with its kind and its traceback, never with its message: messages of drivers and libraries
repeat the values that they stumbled over.
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

import sentry_sdk
from dockerflow.logging import MozlogFormatter
from flask import g, has_request_context

from ctms.settings import Settings
from ctms.telemetry.requests import Answer, Finished

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
        if isinstance(record, SummaryRecord):
            return "\n".join(self._lines(record))
        line, *traceback_lines = super().format(record).split("\n", 1)
        return "\n".join([_with_fields(line, _rid(record)), *traceback_lines])

    def _lines(self, record: SummaryRecord) -> Iterator[str]:
        for finished in record.requests:
            record.at(finished)
            answer, seconds, request_id, *_ = finished
            fields = {**_fields(answer), "t": int(seconds * 1000), "rid": request_id}
            yield _with_fields(super().format(record), fields)


def _with_fields(line: str, fields: dict[str, Any]) -> str:
    return " ".join([line, *(f"{name}={value}" for name, value in fields.items())])


class MozLogFormatter(MozlogFormatter):  # type: ignore[misc]
    """MozLog's JSON (Dockerflow's formatter)."""

    def format(self, record: logging.LogRecord) -> str:
        if not isinstance(record, SummaryRecord):
            return str(super().format(record))
        process = record.process
        return "\n".join(
            [
                # An id has nothing in it that JSON would have to escape.
                f'{{"Timestamp": {int(at * 1e9)}, {self._common(process, answer)}, "t": {int(seconds * 1000)}'
                f', "rid": "{request_id}"}}}}'
                for answer, seconds, request_id, at, *_ in record.requests
            ]
        )

    # Making the same JSON anew took longer than all else that is done for the log. The number of clients is small, that
    # of agents is up to whoever sends them.
    @lru_cache(maxsize=1024)  # noqa: B019  one formatter per process
    def _common(self, process: int, answer: Answer) -> str:
        """Return the JSON that summaries of such an answer share, without its beginning, its end left open."""
        found: dict[str, Any] = super().convert_record(SummaryRecord((), process))
        del found["Timestamp"]
        return json.dumps(found | {"Fields": _fields(answer)})[1:-2]

    def convert_record(self, record: logging.LogRecord) -> dict[str, Any]:
        error, record.exc_info, record.exc_text = record.exc_info, None, None
        found: dict[str, Any] = super().convert_record(record)
        record.exc_info = error  # others, such as Sentry, read the record after us
        found["Fields"].update(_rid(record))
        if error and error[1] is not None:
            found["Fields"]["error"] = type(error[1]).__qualname__
            found["Fields"]["traceback"] = anonymous_traceback(error[1])
        return found


def _rid(record: logging.LogRecord) -> dict[str, str]:
    """Return the id of the request that the record is about, where there is one."""
    rid = getattr(record, "rid", None) or (g.get("request_id") if has_request_context() else None)
    return {"rid": rid} if rid else {}


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
    logging.getLogger("ctms.pool.Pool").setLevel(logging.WARNING)  # SQLAlchemy's words about each connection
    # Its line per request, with `flask run`, has the path in it, and that may be an address.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
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
        written = f"{line}\n".encode(errors="backslashreplace")
        with suppress(OSError):  # nobody reads standard error any more: that is no reason to fail a request
            for block in _blocks(written) if isinstance(record, SummaryRecord) else (written,):
                os.write(2, block)


def _blocks(lines: bytes) -> Iterator[bytes]:
    """Give the lines in blocks of as many as the kernel does not mix with what others write: all, for a file."""
    most = len(lines) if stat.S_ISREG(os.fstat(2).st_mode) else select.PIPE_BUF
    start = 0
    while len(lines) - start > most:
        end = lines.rfind(b"\n", start, start + most) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
    yield lines[start:]


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


# What Sentry may have of an event, and of the exceptions and frames in it. All else may hold what somebody sent.
_OF_EVENTS = frozenset(
    {"event_id", "timestamp", "level", "platform", "logger", "transaction", "transaction_info", "release"}
    | {"environment", "server_name", "sdk", "modules"}
)
_OF_FRAMES = frozenset(
    {"filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line", "post_context", "in_app"}
)


def anonymous_event(event: Any, hint: dict[str, Any]) -> Any:
    """Return of a Sentry event what cannot be about a person: kinds of exceptions, code, and the request's id.

    No messages, no URL, query, headers or variables.
    """
    found = {name: value for name, value in event.items() if name in _OF_EVENTS}
    if "exception" in event:
        found["exception"] = {"values": [_anonymous_exception(one) for one in event["exception"].get("values", [])]}
    if "request" in event:
        found["request"] = {"method": event["request"].get("method", "")}
    found["tags"] = _rid(hint["log_record"]) if "log_record" in hint else {}
    return found


def _anonymous_exception(error: dict[str, Any]) -> dict[str, Any]:
    frames = (error.get("stacktrace") or {}).get("frames", [])
    return {
        "type": error.get("type"),
        "module": error.get("module"),
        "stacktrace": {"frames": [{k: v for k, v in frame.items() if k in _OF_FRAMES} for frame in frames]},
    }


class SummaryRecord(logging.LogRecord):
    """The record of answered requests, of which each gets a line.

    It is made without asking who logs, and in which thread: that takes longer than all the rest.
    """

    def __init__(self, requests: Sequence[Finished], process: int | None = None) -> None:
        self.__dict__.update(_OF_SUMMARIES)
        self.requests = requests
        self.process = process or os.getpid()
        if requests:
            self.at(requests[-1])

    def at(self, finished: Finished) -> None:
        """Be of the time of this request."""
        self.created = finished.at
        self.msecs = finished.at % 1 * 1000


_OF_SUMMARIES = {
    **vars(logging.LogRecord(summary_logger.name, logging.INFO, "", 0, "", (), None)),
    "thread": None,
    "threadName": None,
}


def log_summaries(requests: Sequence[Finished]) -> None:
    """Log a line about each of the requests."""
    if summary_logger.isEnabledFor(logging.INFO):
        summary_logger.handle(SummaryRecord(requests))


def _fields(answer: Answer) -> dict[str, Any]:
    """Return what a summary says, but for how long it took and the request's id."""
    fields: dict[str, Any] = {
        "agent": answer.agent,
        "path": answer.path_template,
        "method": answer.method,
        "code": answer.status,
        "uid": answer.client_id or "",
    }
    if answer.client_id is not None:
        fields["client_id"] = answer.client_id
        fields["client_allowed"] = answer.client_allowed
    if answer.auth_fail is not None:
        fields["auth_fail"] = answer.auth_fail.value
    if answer.token_fail is not None:
        fields["token_fail"] = answer.token_fail.value
    return fields
