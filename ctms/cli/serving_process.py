"""A serving process of `flask ctms serve`. It imports the app, and no commands."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading

from flask import Flask

from ctms.startup import quick_imports

with quick_imports():
    from ctms.app import create_app


def worker_app() -> Flask:
    """Create the app of a serving process, which ends on a signal, or when its parent was killed."""
    if hasattr(signal, "pthread_sigmask"):
        # A terminal's Ctrl-C and a supervisor's SIGTERM reach all processes, and then the parent repeats it. Granian
        # loses requests in flight, or hangs, if it receives the signal twice: so one thread handles it once.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        threading.Thread(target=_end_on_signal, name="end-on-signal", daemon=True).start()
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    with quick_imports():
        app = create_app()
    # Existing objects stay: exempt them from garbage collection.
    gc.collect()
    gc.freeze()
    return app


def _end_on_signal() -> None:
    signal.sigwait({signal.SIGTERM})
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):  # not serving yet
        os._exit(0)
    handler(signal.SIGTERM, None)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
