"""The start of processes that start often: commands and serving processes."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause the garbage collection in the block, which imports modules or creates the app.

    Nearly all objects created there stay: to look for garbage among them takes a tenth of the time of a short command.
    """
    _keep_all_at_exit()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def _keep_all_at_exit() -> None:
    """Do not look for garbage when the process exits: it takes a quarter of the time of a short command."""
    atexit.register(gc.freeze)
