"""The start of processes that start often: commands and serving processes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause the garbage collection in the block, which imports modules or creates the app.

    Nearly all objects created there stay: to look for garbage among them takes a tenth of the time of a short command.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
