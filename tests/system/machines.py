"""API instances and workers that run at the same time, as on several machines, and that die like these."""

from __future__ import annotations

from pathlib import Path

import psutil
import requests

from tests.forked import ForkedFlask
from tests.serving import STOP_TIMEOUT_IN_SECONDS, end, environment_for, free_port, wait_until_announced, wait_until_up


class Machine:
    """A process of the service with its child processes, which can be killed and started again."""

    def __init__(self, name: str, folder: Path, command: str, **variables: str) -> None:
        self.output = folder / f"{name}.txt"
        self._command = command
        self._environment = environment_for(folder, **variables)
        self._process: ForkedFlask | None = None

    def start(self) -> None:
        """Start it, without waiting."""
        self.output.write_text("")
        self._process = ForkedFlask("ctms", self._command, environment=self._environment, output=self.output)

    def check(self) -> None:
        """Check that it has not ended by itself."""
        assert self._running().poll() is None, self.output.read_text()

    def kill(self) -> None:
        """Kill all its processes at once, as a power failure does."""
        process = psutil.Process(self._running().pid)
        family = [process, *process.children(recursive=True)]
        for one in family:
            one.kill()
        self._running().wait(STOP_TIMEOUT_IN_SECONDS)
        psutil.wait_procs(family, STOP_TIMEOUT_IN_SECONDS)

    def stop(self) -> None:
        """Stop it, unless it has ended."""
        if self._process is not None:
            end(self._process)

    def _running(self) -> ForkedFlask:
        assert self._process is not None
        return self._process


class Instance(Machine):
    """An instance of the API."""

    def __init__(self, name: str, folder: Path, **variables: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(name, folder, "serve", PORT=str(self.port), **variables)

    def wait(self) -> None:
        """Wait until it responds."""
        wait_until_announced(self._running(), self.output)
        wait_until_up(self.url, self._running(), self.output)

    def metrics(self) -> str:
        """Return its metrics."""
        answer = requests.get(f"{self.url}/metrics", timeout=60)
        answer.raise_for_status()
        return answer.text
