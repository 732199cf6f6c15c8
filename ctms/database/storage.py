"""Folders and disks: creation, and errors in one line with a remedy."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
READ_ONLY = frozenset({errno.EROFS})
_DENIED = frozenset({errno.EACCES, errno.EPERM})
_NO_FOLDER = frozenset({errno.EEXIST, errno.ENOTDIR})
_UNUSABLE_PATH = frozenset({*_NO_FOLDER, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOENT})

MEGABYTES_OF_A_NEW_DATABASE = 64


def is_root() -> bool:
    """Return whether this process runs as root."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents; as root so that other users can enter them, whatever the umask."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if is_root():
        for one in missing:
            one.chmod(one.stat().st_mode | 0o011)


def data_dir_problem(folder: Path, number: int | None, path: Path | None = None) -> str | None:
    """Return why the service cannot store its data in `folder`, or None for an `errno` unrelated to folder and disk.

    `path` is the path of the error.
    """
    if number in NO_SPACE:
        return (
            f"no space is left for CTMS_DATA_DIR {folder}: free some (a new database needs"
            f" {MEGABYTES_OF_A_NEW_DATABASE} MB), or set CTMS_DATA_DIR to a folder on another disk"
        )
    if number in READ_ONLY:
        return (
            f"CTMS_DATA_DIR {folder} is on a read-only file system: make it writable, or set CTMS_DATA_DIR to another"
            " folder"
        )
    if number in _DENIED:
        closed = _closed(folder) or path
        where = f", denied at {closed}" if closed not in {None, folder} else ""
        return (
            f"CTMS_DATA_DIR {folder} cannot be written by the user {user_name()}{where}: grant the user access, or set"
            " CTMS_DATA_DIR to another folder"
        )
    if number in _NO_FOLDER:
        existing = (one for one in (folder, *folder.parents) if os.path.exists(one))  # noqa: PTH110  never raises
        file = next((one for one in existing if not one.is_dir()), None)
        if file is not None:
            place = "is a file" if file == folder else f"is below {file}, which is a file"
            return f"CTMS_DATA_DIR {folder} {place}: set CTMS_DATA_DIR to a folder"
    if number in _UNUSABLE_PATH:  # also a dangling link
        return f"CTMS_DATA_DIR {folder} cannot be used: {os.strerror(number)}; set CTMS_DATA_DIR to another folder"
    return None


def _closed(folder: Path) -> Path | None:
    """Return the folder, or its parent, that this process cannot enter or write to."""
    above = Path("/")
    for one in (*reversed(folder.absolute().parents), folder.absolute()):
        if not os.access(one, os.F_OK, effective_ids=True):
            return above
        if not os.access(one, os.X_OK, effective_ids=True):
            return one
        above = one
    return None if os.access(folder, os.W_OK, effective_ids=True) else folder


def errno_in(text: str) -> int | None:
    """Return the errno of a disk that a program's English output names."""
    return next((number for number in sorted(NO_SPACE | READ_ONLY) if os.strerror(number) in text), None)


def disk_problem(error: OSError) -> str | None:
    """Return why a file could not be written, or None if the disk is not the cause."""
    if error.errno not in NO_SPACE | READ_ONLY:
        return None
    file = f" ({error.filename})" if error.filename else ""
    if error.errno in NO_SPACE:
        return f"no space is left on the disk{file}: free some, and run the command again"
    return f"the file system is read-only{file}: make it writable, or write to another folder"


def user_name() -> str:
    """Return the name of the user of this process, or the number of one without a name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
