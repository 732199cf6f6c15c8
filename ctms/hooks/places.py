"""Places in a plugin's code: file and line, for messages."""

from __future__ import annotations

import inspect
import traceback
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType
from typing import Any


def place_of_error(error: BaseException, module: str) -> str | None:
    """Return the line of the plugin in `module` that raised an exception, or called what raised it, or None.

    The plugin's code is everything in the package of the module.
    """
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return _place(error.filename, error.lineno)
    own = [step for step in traceback.walk_tb(error.__traceback__) if _package(step[0]) == module.partition(".")[0]]
    return _place(own[-1][0].f_code.co_filename, own[-1][1]) if own else None


def raised_by(error: BaseException, module: str) -> bool:
    """Return whether the code of the plugin in `module` raised the exception itself."""
    steps = list(traceback.walk_tb(error.__traceback__))
    return bool(steps) and _package(steps[-1][0]) == module.partition(".")[0]


def place_of(thing: Any) -> str | None:
    """Return where a function or class is defined, or None if unknown."""
    try:
        found = inspect.unwrap(getattr(thing, "__func__", thing))
        code = getattr(found, "__code__", None)
        if code is not None:
            return _place(code.co_filename, code.co_firstlineno)
        return _place(inspect.getsourcefile(found) or "", inspect.getsourcelines(found)[1])
    except (TypeError, OSError, ValueError):
        return None


def module_of(point: EntryPoint) -> str:
    """Return the module that an entry point names."""
    return point.value.partition(":")[0].strip()


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(file: str, line: int) -> str | None:
    return f"{file}, line {line}" if file and Path(file).is_file() else None
