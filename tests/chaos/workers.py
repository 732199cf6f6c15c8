"""Background services that are repeatedly killed and restarted."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.forked import ForkedFlask
from tests.serving import STOP_TIMEOUT_IN_SECONDS


class Workers:
    """Processes of `flask ctms worker`; one is killed with -9 every few seconds until `spare()`."""

    def __init__(self, number: int, environment: dict[str, str], folder: Path, seed: int) -> None:
        self.killed = 0
        self._environment = environment
        self._output = folder / "workers.txt"
        self._chance = random.Random(seed)  # noqa: S311
        self._spared = threading.Event()
        self._processes = [self._start() for _ in range(number)]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def spare(self) -> None:
        """Stop killing."""
        self._spared.set()
        self._thread.join()

    def stop(self) -> list[int]:
        """Stop all with SIGTERM; return their exit statuses."""
        self.spare()
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        try:
            return [process.wait(timeout=STOP_TIMEOUT_IN_SECONDS) for process in self._processes]
        finally:
            for process in self._processes:
                process.kill()  # has no effect on terminated ones
                process.wait()

    def text(self) -> str:
        """Return the log."""
        return self._output.read_text()

    def _start(self) -> ForkedFlask:
        return ForkedFlask("ctms", "worker", environment=self._environment, output=self._output)

    def kill_one(self) -> None:
        """Kill one of them with -9 and start another in its place."""
        number = self._chance.randrange(len(self._processes))
        self._processes[number].kill()
        self._processes[number].wait()
        self.killed += 1
        self._processes[number] = self._start()

    def _run(self) -> None:
        while not self._spared.wait(self._chance.uniform(2, 6)):
            self.kill_one()


@contextmanager
def workers(number: int, environment: dict[str, str], folder: Path, seed: int) -> Iterator[Workers]:
    """Run background services that are repeatedly killed; stop all at the end."""
    running = Workers(number, environment, folder, seed)
    try:
        yield running
    finally:
        running.stop()
