"""Fast `flask` commands: each process is forked from one that has already imported everything.

A process has its own output, log and exit status, as if a shell had started it; only the imports are shared.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

_MODULES = [
    "ctms.app",
    "ctms.cli",
    "ctms_plugins.jsonl.journal",
    "flask.cli",
    "flask_migrate",
    "tests.forked",
    "tests.frozen",
]


def context() -> ForkServerContext:
    """Return the context that forks processes which have already imported the service."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(_MODULES)
    return forks


def run_flask(
    *arguments: str, environment: Mapping[str, str], cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a `flask` command in a folder, without a terminal, and wait for it."""
    forks = context()
    with tempfile.TemporaryDirectory() as folder:
        written = [Path(folder, name) for name in ("stdout", "stderr")]
        process = forks.Process(target=_run, args=(arguments, dict(environment), str(cwd), [str(p) for p in written]))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        status = process.exitcode
        process.close()
        return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in written))


def _run(arguments: Sequence[str], environment: dict[str, str], cwd: str, written: Sequence[str]) -> None:
    for number, path in ((0, os.devnull), *enumerate(written, 1)):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    # The existing streams belong to the parent. Modules may refer to them since their import (Alembic does, as a
    # default), so they are flushed at the end, too.
    kept = [one for one in (sys.stdout, sys.stderr) if one is not None]
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in ((0, "r"), (1, "w"), (2, "w")))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    # Python reads the variable only at start-up, and this process was forked later.
    sys.path[:0] = [folder for folder in environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.argv = ["flask", *arguments]
    from flask.cli import main  # noqa: PLC0415  as the script `flask` does

    try:
        main()
    finally:
        # A forked process does not run the exit handlers itself.
        atexit._run_exitfuncs()
        for one in (*kept, sys.stdout, sys.stderr):
            one.flush()
