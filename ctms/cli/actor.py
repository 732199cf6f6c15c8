"""The operator who runs a command, for the records of what it did."""

from __future__ import annotations

import getpass
import os

OPERATOR = "operator:"
"""The prefix of operators among actors."""


def current_actor() -> str:
    """Return `operator:` and the login of the user who runs the command, even with sudo."""
    try:
        login = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in containers
        login = str(os.getuid())
    return f"{OPERATOR}{login}"
