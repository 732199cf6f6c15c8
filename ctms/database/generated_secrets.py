"""The secrets that the service signs and fingerprints with: the operator's, or generated ones in `CTMS_DATA_DIR`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from ctms.database.storage import data_dir_problem, make_folder
from ctms.errors import OperatorError
from ctms.settings import Settings


def secret_key(settings: Settings) -> str:
    """The key that signs tokens: the operator's, or the one kept beside the embedded database.

    Raises `OperatorError` where it cannot be kept.
    """
    return settings.secret_key or _kept(settings, "secret-key")


def erasure_key(settings: Settings) -> str | None:
    """The key of the fingerprints of addresses: the operator's, or the one kept beside the embedded database.

    None on a server of one's own where `CTMS_ERASURE_KEY` is not set. Raises `OperatorError` where it cannot be kept.
    """
    return settings.erasure_key or (_kept(settings, "erasure-key") if settings.embedded else None)


def _kept(settings: Settings, name: str) -> str:
    try:
        return load_or_create_secret(settings.data_dir, name)
    except OSError as error:
        path = Path(error.filename) if error.filename else None
        raise OperatorError(
            data_dir_problem(settings.data_dir, error.errno, path)
            or f"CTMS_DATA_DIR {settings.data_dir} cannot be used: {error.strerror}"
        ) from error


def load_or_create_secret(folder: Path, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(48)) -> str:
    """Return the secret kept in `folder/name`, made at the first call; readable by the user only.

    Two processes that call at once get the same secret.
    """
    make_folder(folder)
    path = folder / name
    draft = folder / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
    if not path.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        try:
            os.link(draft, path)  # fails when another process was first: then its secret counts
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
