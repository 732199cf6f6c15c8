"""A guard against I/O: inside it, files, sockets, processes and database connections are errors.

Python tells its audit hooks what it is about to do; one of ours listens for as long as the process lives, and objects
only inside the guard. Modules may be imported there, as Python does when something is used for the first time.
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
"""How the names of the audit events begin that stand for I/O."""

_IMPORT = "<frozen importlib"

_done: ContextVar[list[str] | None] = ContextVar("what was done inside the guard", default=None)


class InputOutput(Exception):
    """Something inside the guard reached for the world outside; the message says what."""


@contextmanager
def no_io() -> Iterator[None]:
    """Refuse I/O of this thread. Raises `InputOutput` at the end, also when who did it caught what was raised there."""
    _listen()
    done: list[str] = []
    token = _done.set(done)
    try:
        # libpq is C and tells no audit hook.
        with (
            patch.object(psycopg, "connect", _refuse_database),
            patch.object(psycopg.Connection, "connect", _refuse_database),
        ):
            yield
    except InputOutput:
        pass  # raised below, with all that was done
    finally:
        _done.reset(token)
    if done:
        raise InputOutput(", ".join(dict.fromkeys(done)))


def _refuse_database(*_: Any, **__: Any) -> NoReturn:
    _refuse("psycopg.connect")


def _refuse(what: str) -> NoReturn:
    done = _done.get()
    if done is not None:
        done.append(what)
    raise InputOutput(what)


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
