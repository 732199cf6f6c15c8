"""Keys for signing tokens and for fingerprints: the operator's, or generated ones in `CTMS_DATA_DIR`."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from ctms.database.storage import data_dir_problem, make_folder
from ctms.errors import OperatorError
from ctms.settings import Settings


def secret_key(settings: Settings) -> str:
    """Return the key that signs tokens: the operator's, or the one stored with the embedded database.

    Raises `OperatorError` if it cannot be stored.
    """
    return settings.secret_key or _kept(settings, "secret-key")


def erasure_key(settings: Settings) -> str | None:
    """Return the key of addresses' fingerprints: the operator's, or the one stored with the embedded database.

    None with the operator's own server if `CTMS_ERASURE_KEY` is not set. Raises `OperatorError` if it cannot be stored.
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
    """Return the secret stored in `folder/name`, created by the first call; only the user can read it.

    Two processes that call concurrently get the same secret.
    """
    make_folder(folder)
    path = folder / name
    draft = folder / f"{name}.{os.getpid()}.{secrets.token_hex(4)}"
    if not path.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        try:
            os.link(draft, path)  # fails if another process was first: then its secret is used
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()
