"""A `flask` for the shells that run the examples of the docs: forked like the other commands of the tests.

It is a script without imports of the service, which asks the process of the tests for a forked command with its
arguments, environment, folder and streams, and exits with its status. Signals are not forwarded.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from tests import forked

_SCRIPT = """\
#!{python} -IS
import json, os, socket, sys

request = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
with socket.socket(socket.AF_UNIX) as tests:
    tests.connect({address!r})
    socket.send_fds(tests, [b"-"], [0, 1, 2])
    tests.sendall(request)
    tests.shutdown(socket.SHUT_WR)
    sys.exit(int(tests.makefile().read()))
"""
_PROGRAMS = Path(sys.executable).parent


def activated(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a reader who has activated the virtual environment of CTMS; `flask` is forked."""
    return {**environment, "PATH": os.pathsep.join([_flask().name, str(_PROGRAMS), os.environ["PATH"]])}


@cache
def _flask() -> TemporaryDirectory[str]:
    """Return the folder of the script, which is there, like the thread that it asks, until this process ends."""
    folder: TemporaryDirectory[str] = TemporaryDirectory(prefix="c")  # short: it is in the address of the socket
    address = Path(folder.name, "tests")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    script = Path(folder.name, "flask")
    script.write_text(_SCRIPT.format(python=sys.executable, address=str(address)))
    script.chmod(0o755)
    Thread(target=_listen, args=(listener,), name="forked flask", daemon=True).start()
    return folder


def _listen(listener: socket.socket) -> None:
    while True:
        script, _ = listener.accept()
        Thread(target=_answer, args=(script,), daemon=True).start()


def _answer(script: socket.socket) -> None:
    with script:
        _, streams, _, _ = socket.recv_fds(script, 1, 3)
        arguments, environment, folder = json.loads(script.makefile("rb").read())
        command = (arguments, environment, folder, _Streams(streams))
        process = forked.context().Process(target=forked.run_with_streams, args=command, daemon=True)
        process.start()
        for stream in streams:
            os.close(stream)
        process.join()
        script.sendall(str(process.exitcode).encode())


class _Streams:
    """File descriptors that pickling passes to a forked process, which gets a list of its own."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, tuple(DupFd(number) for number in self._numbers)


def _received(*passed: Any) -> list[int]:
    return [one.detach() for one in passed]
