"""Recorders: every record is observed once, except those that a killed process had not flushed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from ctms.telemetry import recorders
from ctms.telemetry.recorders import (
    FLUSH_INTERVAL_SECONDS,
    MAX_BUFFERED,
    DirectRecorder,
    RequestBuffer,
    create_recorder,
)
from ctms.telemetry.requests import RequestLabels, RequestRecord
from ctms.telemetry.slots import Slots

LABELS = RequestLabels("GET", "/ctms/{email_id}", 200, "agent/1.0", "id_test", True)

# Adds a record for each line, and flushes every so many seconds.
_PROCESS = """
import sys
from pathlib import Path
from ctms.telemetry import recorders
from ctms.telemetry.requests import RequestLabels, RequestRecord
from ctms.telemetry.slots import Slots
recorders.FLUSH_INTERVAL_SECONDS = float(sys.argv[2])
log = Path(sys.argv[1]) / "observed"
def observe(records):
    with log.open("a") as file:
        file.writelines(record.request_id + "\\n" for record in records)
buffer = recorders.RequestBuffer(Slots(Path(sys.argv[1])), observe)
for line in sys.stdin:
    buffer.add(RequestRecord(RequestLabels("GET", "/", 200, ""), 0.5, line.strip(), 1700000000.25))
    print("added", flush=True)
"""


class Observed:
    """An observer that keeps its records."""

    def __init__(self) -> None:
        self.batches: list[list[RequestRecord]] = []

    def __call__(self, records: Sequence[RequestRecord]) -> None:
        self.batches.append(list(records))

    @property
    def ids(self) -> list[str]:
        return [record.request_id for batch in self.batches for record in batch]


class Process:
    """Another process of the instance, with a buffer of its own."""

    def __init__(self, directory: Path, interval_seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, str(directory), str(interval_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._log = directory / "observed"

    def add(self, request_id: str) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{request_id}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "added\n"

    def observed(self) -> list[str]:
        """Return the ids of all records that were flushed in the directory."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    def end(self) -> int:
        """Wait for its end; return its exit status."""
        assert self._process.stdin
        self._process.stdin.close()
        return self._wait()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._wait()
        assert self._process.stdin
        self._process.stdin.close()

    def _wait(self) -> int:
        status = self._process.wait(timeout=200)
        assert self._process.stdout
        self._process.stdout.close()
        return status


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a buffer does not flush during the test."""
    monkeypatch.setattr(recorders, "FLUSH_INTERVAL_SECONDS", 1000)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Process]:
    """A process that has not flushed yet, and will after a while."""
    process = Process(tmp_path, 0.4)
    process.add("r-1")
    yield process
    process.kill()


def record(request_id: str) -> RequestRecord:
    return RequestRecord(LABELS, 0.002, request_id, time.time(), read_seconds=0.001)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_direct_recorder_passes_each_record_on_at_once(observed: Observed) -> None:
    recorder = DirectRecorder(observed)
    recorder.add(record("r-1"))
    assert observed.ids == ["r-1"]
    recorder.flush()
    assert observed.ids == ["r-1"]


def test_the_recorder_depends_on_the_metrics_directory(tmp_path: Path, observed: Observed) -> None:
    assert isinstance(create_recorder(None, observed, sample=lambda: None), DirectRecorder)
    assert isinstance(create_recorder(Slots(tmp_path), observed, sample=lambda: None), RequestBuffer)


def test_a_thread_flushes_many_records_together(tmp_path: Path, observed: Observed) -> None:
    samples: list[float] = []
    buffer = RequestBuffer(Slots(tmp_path), observed, sample=lambda: samples.append(time.monotonic()))
    records = [record(f"r-{number}") for number in range(100)]
    for one in records:
        buffer.add(one)
    wait_for(lambda: len(observed.ids) == 100)

    assert [one for batch in observed.batches for one in batch] == records
    wait_for(lambda: len(samples) > 1)
    assert samples[1] - samples[0] >= FLUSH_INTERVAL_SECONDS
    buffer.flush()
    assert len(observed.ids) == 100


@pytest.mark.usefixtures("never")
def test_flush_passes_all_records_on_at_once(tmp_path: Path, observed: Observed) -> None:
    buffer = RequestBuffer(Slots(tmp_path), observed)
    buffer.flush()
    assert observed.batches == []
    for number in range(3):
        buffer.add(record(f"r-{number}"))
    assert observed.batches == []
    buffer.flush()
    assert len(observed.batches) == 1
    assert observed.ids == ["r-0", "r-1", "r-2"]


@pytest.mark.usefixtures("never")
def test_the_buffer_has_a_limit(tmp_path: Path, observed: Observed) -> None:
    buffer = RequestBuffer(Slots(tmp_path), observed)
    for number in range(MAX_BUFFERED + 1):
        buffer.add(record(f"r-{number}"))
    assert len(observed.ids) == MAX_BUFFERED
    buffer.flush()
    assert observed.ids == [f"r-{number}" for number in range(MAX_BUFFERED + 1)]


def test_many_threads(tmp_path: Path, observed: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorders, "MAX_BUFFERED", 7)
    buffer = RequestBuffer(Slots(tmp_path), observed)

    def work(name: int) -> None:
        for number in range(500):
            buffer.add(record(f"r-{name}-{number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.flush()
    assert Counter(observed.ids) == Counter(f"r-{name}-{number}" for name in range(8) for number in range(500))


def test_a_process_that_ends_flushes(tmp_path: Path) -> None:
    process = Process(tmp_path, 1000)
    process.add("r-1")
    assert process.observed() == []

    assert process.end() == 0

    assert process.observed() == ["r-1"]


def test_a_killed_process_loses_only_unflushed_records(tmp_path: Path) -> None:
    process = Process(tmp_path, 0.01)
    process.add("r-1")
    wait_for(lambda: process.observed() == ["r-1"])
    process.kill()

    successor = Process(tmp_path, 1000)
    successor.add("r-2")
    successor.end()

    assert successor.observed() == ["r-1", "r-2"]


def test_flush_waits_for_the_other_processes(
    tmp_path: Path, slow: Process, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorders, "FLUSH_TIMEOUT_SECONDS", 200)  # the machine may be busy
    RequestBuffer(Slots(tmp_path), observed).flush()

    assert slow.observed() == ["r-1"]
    assert observed.ids == []


def test_flush_waits_for_a_limited_time(tmp_path: Path, observed: Observed) -> None:
    hanging = Process(tmp_path, 1000)
    hanging.add("r-1")
    started = time.monotonic()
    RequestBuffer(Slots(tmp_path), observed).flush()

    assert time.monotonic() - started >= 1
    assert hanging.observed() == []
    hanging.kill()


def test_flush_does_not_wait_for_processes_without_records(
    tmp_path: Path, observed: Observed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process never flushes again, and one that serves no request, such as a parent, has no flush thread."""
    monkeypatch.setattr(recorders, "FLUSH_TIMEOUT_SECONDS", 1000)
    killed = Process(tmp_path, 1000)
    killed.add("r-1")
    killed.kill()
    idle = Slots(tmp_path)
    idle.acquire()

    RequestBuffer(Slots(tmp_path), observed).flush()

    assert sorted(file.name for file in tmp_path.glob("*.slot")) == ["0.slot", "1.slot"]


# Python 3.12 and later warn of forks where there are threads; this one does next to nothing before it ends.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.usefixtures("never")
def test_a_fork_has_a_buffer_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "observed"

    def observe(records: Sequence[RequestRecord]) -> None:
        with log.open("a") as file:
            file.writelines(f"{one.request_id}\n" for one in records)

    buffer = RequestBuffer(Slots(tmp_path), observe)
    buffer.add(record("r-1"))
    child = os.fork()
    if not child:
        buffer.add(record("r-2"))
        buffer._drain()
        os._exit(0)
    os.waitpid(child, 0)
    buffer.flush()

    assert log.read_text() == "r-2\nr-1\n"
    assert len(list(tmp_path.glob("*.slot"))) == 2


def test_an_observer_that_fails_is_logged_and_does_not_affect_others(
    tmp_path: Path, observed: Observed, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_records: Sequence[RequestRecord]) -> None:
        raise RuntimeError

    buffer = RequestBuffer(Slots(tmp_path), fail, observed)
    for number in range(2):
        buffer.add(record(f"r-{number}"))
        buffer.flush()

    assert observed.ids == ["r-0", "r-1"]
    assert {one.message for one in caplog.records} == {"telemetry failed"}
