"""A guard against I/O: inside it, files, sockets, processes and database connections are errors.

Python's audit hooks report what it is about to do. Ours is active for the life of the process, and raises only inside
the guard. Imports are allowed, since Python imports modules on first use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NoReturn
from unittest.mock import patch

import psycopg

_IO = (
    "fcntl.",
    "ftplib.",
    "glob.",
    "http.client.",
    "imaplib.",
    "open",
    "os.",
    "pathlib.Path.",
    "poplib.",
    "shutil.",
    "smtplib.",
    "socket.",
    "sqlite3.",
    "subprocess.",
    "tempfile.",
    "urllib.",
)
"""The prefixes of audit events for I/O."""

_IMPORT = "<frozen importlib"

_done: ContextVar[list[str] | None] = ContextVar("what was done inside the guard", default=None)


class UnexpectedIO(Exception):
    """Attempted I/O inside the guard; the message names it."""


@contextmanager
def no_io() -> Iterator[None]:
    """Refuse I/O of this thread. Raises `UnexpectedIO` at the end, even if the exception at the call was caught."""
    _listen()
    done: list[str] = []
    token = _done.set(done)
    try:
        # libpq is C code without audit hooks.
        with (
            patch.object(psycopg, "connect", _refuse_database),
            patch.object(psycopg.Connection, "connect", _refuse_database),
        ):
            yield
    except UnexpectedIO:
        pass  # raised below, with all attempts
    finally:
        _done.reset(token)
    if done:
        raise UnexpectedIO(", ".join(dict.fromkeys(done)))


def _refuse_database(*_: Any, **__: Any) -> NoReturn:
    _refuse("psycopg.connect")


def _refuse(what: str) -> NoReturn:
    done = _done.get()
    if done is not None:
        done.append(what)
    raise UnexpectedIO(what)


@cache
def _listen() -> None:
    def hook(event: str, _arguments: tuple[Any, ...]) -> None:
        if _done.get() is not None and event.startswith(_IO) and not _is_import():
            _refuse(event)

    sys.addaudithook(hook)


def _is_import() -> bool:
    frame = sys._getframe()  # noqa: SLF001  documented; `inspect` would read files to tell more
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename.startswith(_IMPORT):
            return True
    return False
