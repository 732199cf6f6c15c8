"""Slots: counters of dead processes still count, their gauges do not, and the number of files stays small."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from ctms.telemetry.slots import Slots, run_directory
from tests.telemetry.scraped import values

_PROCESS = """
import os, sys
from ctms.telemetry.slots import open_slots
slots = open_slots()
from prometheus_client import CollectorRegistry, Counter, Gauge
registry = CollectorRegistry()
counter = Counter("counted", "x", registry=registry)
gauge = Gauge("running", "x", registry=registry, multiprocess_mode="livesum")
for line in sys.stdin:
    if line == "fork\\n" and not os.fork():
        counter.inc()
        os._exit(0)
    counter.inc()
    gauge.set(1)
    print(slots.acquire(), flush=True)
"""


class Process:
    """A process that counts on request."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def count(self, how: str = "") -> int:
        """Count one; return the slot."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{how}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        """Kill it, as the kernel does when memory runs out."""
        self._process.kill()
        self._process.wait(timeout=200)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Process]]:
    """Two running processes."""
    made = [Process(tmp_path), Process(tmp_path)]
    yield made
    for process in made:
        process.kill()


def scrape(folder: Path) -> tuple[float, float]:
    """Return the sums of the counter and of the gauge."""

    class Files(Collector):
        def collect(self) -> Iterator[Metric]:
            return iter(MultiProcessCollector.merge(Slots(folder).files()))  # type: ignore[no-untyped-call]

    text = generate_latest(Files()).decode()
    return sum(values(text, "counted_total").values()), sum(values(text, "running").values())


def test_counters_of_a_killed_process_remain(tmp_path: Path, processes: list[Process]) -> None:
    assert {process.count() for process in processes} == {0, 1}
    assert scrape(tmp_path) == (2, 2)

    killed = processes.pop()
    slot = killed.count()
    killed.kill()
    assert scrape(tmp_path) == (3, 1)  # without its gauge

    for number in range(4):  # successors continue to count
        processes.append(Process(tmp_path))
        assert processes[-1].count() == slot
        assert scrape(tmp_path) == (4 + number, 2)
        processes.pop().kill()
    assert len(list(tmp_path.glob("*.db"))) == 4  # two slots, each with counters and gauges


def test_a_fork_has_a_slot_of_its_own(tmp_path: Path, processes: list[Process]) -> None:
    first = processes[0].count()
    processes[0].count("fork")

    give_up = time.monotonic() + 200
    while scrape(tmp_path)[0] < 3:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert processes[0].count() == first
    assert scrape(tmp_path) == (4, 1)


def test_a_file_being_created_is_ignored(tmp_path: Path, processes: list[Process]) -> None:
    processes[0].count()
    (tmp_path / "counter_7.db").touch()  # as another process does before it gives the file its size

    assert scrape(tmp_path) == (1, 1)


def test_files_of_an_earlier_run_are_removed(tmp_path: Path) -> None:
    earlier = Process(tmp_path)
    earlier.count()
    earlier.kill()
    assert scrape(tmp_path) == (1, 0)

    process = Process(tmp_path)
    process.count()
    assert scrape(tmp_path) == (1, 1)
    process.kill()


def test_counters_remain_while_all_processes_of_a_run_are_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with run_directory() as folder:
        for number in range(1, 3):
            process = Process(folder)
            process.count()
            process.kill()
            assert scrape(folder) == (number, 0)
        assert Slots(folder).size() > 0
    assert not folder.exists()


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, new, foreign = (tmp_path / f"ctms-metrics-{name}" for name in ("left", "new", "foreign"))
    for folder in (left, new, foreign):
        folder.mkdir()
    for folder in (left, new):
        (folder / "run.lock").touch()
    (tmp_path / "ctms-metrics-link").symlink_to(new)

    with run_directory() as running:
        for folder in (left, running, foreign):
            os.utime(folder, (0, 0))
        with run_directory() as second:
            assert not left.exists()
            assert running.exists()
            assert foreign.exists()
            assert new.exists()  # it may not be locked yet
            assert second.exists()
